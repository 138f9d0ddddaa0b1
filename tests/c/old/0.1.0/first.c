/*
 * A host of the first release, for ever as it was then: compiled with the header beside it, run with today's library. It uses
 * every function and every struct of that header, and only what that header says.
 *
 * usage: first FOLDER
 */
#define _POSIX_C_SOURCE 200809L

#include <peas.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES 3000000u
#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, why.message);                                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static peas_error why;

struct heard {
    int complete, ended, lines;
};

static void hear(void *user_data, const peas_event *event)
{
    struct heard *heard = user_data;
    if (event->kind == PEAS_EVENT_COMPLETE) heard->complete++;
    if (event->kind == PEAS_EVENT_ENDED) {
        heard->ended++;
        CHECK(event->status == PEAS_OK && event->os_code == 0);
    }
    if (event->kind == PEAS_EVENT_NOTICE || event->kind == PEAS_EVENT_LOG) {
        heard->lines++;
        CHECK(event->level >= PEAS_LEVEL_ERROR);
    }
}

static void wake(void *user_data) { ++*(volatile int *)user_data; }

static unsigned char byte_at(unsigned at) { return (unsigned char)((at * 2654435761u) >> 24); }

static int is_content(const char *path)
{
    FILE *file = fopen(path, "rb");
    unsigned at = 0;
    int c;
    if (file == NULL) return 0;
    while ((c = getc(file)) != EOF && at < BYTES && c == byte_at(at)) at++;
    fclose(file);
    return at == BYTES && c == EOF;
}

static peas_engine *engine(void)
{
    const char *options[] = { "listen=127.0.0.1:0", "scope=any", "threads=1", "log=info", NULL };
    peas_engine *made = NULL;
    CHECK(peas_engine_new(options, &made, &why) == PEAS_OK && made != NULL);
    return made;
}

int main(int argc, char **argv)
{
    static char text[1 << 16];
    peas_engine_info at;
    peas_info info;
    peas_event events[8];
    peas_job made, shared, job;
    char peer[64];
    volatile int woken = 0;
    int taken, ended = 0;
    if (argc != 2 || chdir(argv[1]) != 0) return 2;
    CHECK(peas_version() >= PEAS_VERSION && strlen(peas_version_string()) >= 5);
    CHECK(strcmp(peas_status_string(PEAS_EQUIVOCATION), "PEAS_EQUIVOCATION") == 0);

    FILE *file = fopen("content", "wb");
    CHECK(file != NULL);
    for (unsigned i = 0; i < BYTES; i++) putc(byte_at(i), file);
    CHECK(fclose(file) == 0);

    /* One that has it. */
    peas_engine *from = engine(), *to = engine();
    const char *named[] = { "name=first", "release=1", NULL };
    CHECK(peas_create(from, "content", "content.peas", named, &made, &why) == PEAS_OK);
    CHECK(peas_wait(from, made, 60000, &why) == PEAS_OK);
    CHECK(peas_describe("content.peas", text, sizeof text, &why) > 0 && strstr(text, "\"name\":\"first\"") != NULL);
    CHECK(peas_share(from, "content.peas", "content", NULL, &shared, &why) == PEAS_OK && peas_wait(from, shared, 60000, &why) == PEAS_OK);
    CHECK(peas_refresh(from, shared, "fresh.peas", &why) == PEAS_OK);
    CHECK(peas_engine_get_info(from, &at) == PEAS_OK && at.port != 0 && strlen(at.peer_id) == 64 && strlen(at.listen) > 0 && at.jobs == 1);
    snprintf(peer, sizeof peer, "peer=127.0.0.1:%u", at.port);
    const char *trusted[] = { "trust=file", peer, NULL }, *paused[] = { "trust=file", "paused=yes", peer, NULL };

    /* One that wants it: by poll, with the descriptor and the wake function. */
    CHECK(peas_install(to, "content.peas", "x", NULL, &job, &why) == PEAS_INVALID && job == 0 && why.status == PEAS_INVALID);
    CHECK(peas_set_wake(to, wake, (void *)&woken) == PEAS_OK);
    struct pollfd bell = { .fd = (int)peas_pollable(to), .events = POLLIN };
    CHECK(bell.fd >= 0 && peas_install(to, "content.peas", "one", trusted, &job, &why) == PEAS_OK);
    while (!ended) {
        CHECK(poll(&bell, 1, 60000) == 1 && (taken = peas_poll(to, events, 8, 0)) >= 0);
        for (int i = 0; i < taken; i++) ended += events[i].kind == PEAS_EVENT_ENDED && events[i].job == job;
    }
    CHECK(is_content("one") && woken > 0 && peas_set_wake(to, NULL, NULL) == PEAS_OK);
    CHECK(peas_job_info(to, job, &info) == PEAS_OK && info.state == PEAS_STATE_ENDED && info.status == PEAS_OK && info.complete == 1);
    CHECK(info.verb == PEAS_VERB_INSTALL && info.bytes_done == BYTES && info.bytes_total == BYTES && info.paused == PEAS_PAUSE_NONE);
    CHECK(info.pieces_done == info.pieces_total && info.bytes_from_origin + info.bytes_from_peers >= BYTES && info.remaining_ms == -1);

    /* By dispatch; paused, and let go. */
    struct heard heard = { 0 }, called = { 0 };
    CHECK(peas_install(to, "content.peas", "two", paused, &job, &why) == PEAS_OK && peas_wait(to, job, 50, &why) == PEAS_TIMEOUT);
    const char *go_on[] = { "paused=no", NULL };
    CHECK(peas_set(to, job, go_on, &why) == PEAS_OK);
    while (!heard.ended) CHECK(peas_dispatch(to, hear, &heard, 60000) > 0);
    CHECK(heard.complete == 1 && heard.lines > 0 && is_content("two"));

    /* By callback. */
    CHECK(peas_set_callback(to, hear, &called) == PEAS_OK);
    CHECK(peas_install(to, "content.peas", "three", trusted, &job, &why) == PEAS_OK && peas_wait(to, job, 60000, &why) == PEAS_OK);
    do { CHECK(peas_job_info(to, job, &info) == PEAS_OK); } while (info.state != PEAS_STATE_ENDED);
    CHECK(peas_verify(to, "content.peas", "three", NULL, &job, &why) == PEAS_OK && peas_wait(to, job, 60000, &why) == PEAS_OK);
    CHECK(peas_set_callback(to, NULL, NULL) == PEAS_OK && called.complete >= 1 && is_content("three"));

    CHECK(peas_stats(from, shared, text, sizeof text) > 0 && strstr(text, "\"bytes_sent\"") != NULL);
    CHECK(peas_cancel(from, shared) == PEAS_OK && peas_cancel(from, 999) == PEAS_NOT_FOUND);
    CHECK(peas_engine_close(to, 2000) == PEAS_OK && peas_engine_close(from, 2000) == PEAS_OK);
    CHECK(peas_cancel(from, shared) == PEAS_CLOSED);
    puts("all well");
    return 0;
}
