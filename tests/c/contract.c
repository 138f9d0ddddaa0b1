/*
 * What peas.h promises to a host, call by call, on real engines that install from each other over the loopback. How an engine
 * lives in its process is in living.c.
 *
 * usage: contract FOLDER
 */
#include "host.h"

_Static_assert(sizeof(peas_error) == 256, "peas_error");
_Static_assert(sizeof(peas_engine_info) == 256, "peas_engine_info");
_Static_assert(sizeof(peas_info) == 256, "peas_info");
_Static_assert(sizeof(peas_event) == 512, "peas_event");
_Static_assert(sizeof(peas_status) == 4, "peas_status");
_Static_assert(sizeof(peas_job) == 8, "peas_job");

static void nonsense_is_answered(void)
{
    peas_engine *engine = NULL;
    peas_job job = 7;
    peas_event event;
    peas_info info;
    char text[8];

    CHECK(peas_version() == PEAS_VERSION && strcmp(peas_version_string(), "0.1.0") == 0);
    CHECK(strcmp(peas_status_string(PEAS_FULL), "PEAS_FULL") == 0 && peas_status_string(12345) != NULL);
    CHECK(peas_engine_new(NULL, NULL, &why) == PEAS_INVALID && strstr(why.message, "NULL") != NULL);
    CHECK(peas_engine_new(NULL, NULL, NULL) == PEAS_INVALID);
    CHECK(peas_engine_close(NULL, 0) == PEAS_OK);
    CHECK(peas_poll(NULL, &event, 1, 0) == PEAS_INVALID && peas_dispatch(NULL, NULL, NULL, 0) == PEAS_INVALID);
    CHECK(peas_install(NULL, "a", "b", NULL, &job, &why) == PEAS_INVALID && job == 0);
    CHECK(peas_describe(NULL, text, sizeof text, &why) == 0 && why.status == PEAS_INVALID && text[0] == 0);
    CHECK(peas_stats(NULL, 0, NULL, 0) == 0 && peas_pollable(NULL) == -1);
    CHECK(peas_set_callback(NULL, NULL, NULL) == PEAS_INVALID && peas_set_wake(NULL, NULL, NULL) == PEAS_INVALID);
    CHECK(peas_cancel((peas_engine *)(void *)&event, 1) == PEAS_INVALID);

    { const char *o[] = { "upload_limt=1", NULL };
      CHECK(peas_engine_new(o, &engine, &why) == PEAS_INVALID && engine == NULL && strstr(why.message, "\"upload_limit\"")); }
    { const char *o[] = { "threads=many", NULL }; CHECK(peas_engine_new(o, &engine, &why) == PEAS_INVALID); }
    { const char *o[] = { "listen=192.0.2.1:1", NULL };
      CHECK(peas_engine_new(o, &engine, &why) == PEAS_IO && why.os_code == EADDRNOTAVAIL && engine == NULL); }

    engine = engine_with(NULL);
    { char bad[] = { 'a', (char)0xff, 0 }; CHECK(peas_install(engine, bad, "b", NULL, &job, &why) == PEAS_INVALID); }
    CHECK(peas_install(engine, "a", "b", NULL, &job, &why) == PEAS_INVALID && strstr(why.message, "trust="));
    CHECK(peas_install(engine, "a", "", NULL, &job, &why) == PEAS_INVALID && peas_share(engine, NULL, "b", NULL, &job, &why) == PEAS_INVALID);
    CHECK(peas_poll(engine, NULL, 1, 0) == PEAS_INVALID && peas_poll(engine, &event, 0, 0) == PEAS_INVALID);
    CHECK(peas_poll(engine, &event, 1, 0) == 0 && peas_dispatch(engine, NULL, NULL, 0) == PEAS_INVALID);
    CHECK(peas_cancel(engine, 999) == PEAS_NOT_FOUND && peas_wait(engine, 999, -1, &why) == PEAS_NOT_FOUND);
    CHECK(peas_job_info(engine, 999, &info) == PEAS_NOT_FOUND && peas_job_info(engine, 1, NULL) == PEAS_INVALID);
    { const char *o[] = { "listen=off", NULL }; CHECK(peas_set(engine, 0, o, &why) == PEAS_INVALID && strstr(why.message, "peas_engine_new")); }

    /* What is wrong with a file arrives as the job's end. */
    job = install_from(engine, "missing.peas", "x", "peer=127.0.0.1:1", NULL);
    CHECK(peas_wait(engine, job, 10000, &why) == PEAS_NOT_FOUND && why.os_code == ENOENT && strstr(why.message, "missing.peas"));
    write_file("noise.peas", 4096, 1);
    job = install_from(engine, "noise.peas", "x", "peer=127.0.0.1:1", NULL);
    CHECK(peas_wait(engine, job, 10000, &why) == PEAS_CORRUPT);
    int ended = 0;
    while (peas_poll(engine, &event, 1, 0) == 1)
        if (event.kind == PEAS_EVENT_ENDED) { ended++; CHECK(event.status == (ended == 1 ? PEAS_NOT_FOUND : PEAS_CORRUPT)); }
    CHECK(ended == 2);

    peas_engine *closed = engine;
    OK(peas_engine_close(engine, HANG_MS));
    CHECK(peas_cancel(closed, 1) == PEAS_CLOSED && peas_poll(closed, &event, 1, 0) == PEAS_CLOSED);
    CHECK(peas_engine_close(closed, 0) == PEAS_CLOSED);
    engine = engine_with(NULL);
    CHECK(engine != closed && peas_cancel(closed, 1) == PEAS_CLOSED);
    OK(peas_engine_close(engine, HANG_MS));
}

static peas_engine *woken_engine;
static _Atomic int woken, answer_from_wake = 99;
static _Atomic long wake_thread;

static void wake(void *user_data)
{
    CHECK(user_data == &woken);
    wake_thread = (long)gettid();
    answer_from_wake = peas_cancel(woken_engine, 1);
    woken++;
}

static void installs_and_tells(void)
{
    char peer[64], text[65536];
    peas_event events[64];
    peas_info info;
    peas_job job;
    write_file("a", CONTENT_BYTES, 1);
    peas_engine *from = publisher("a", "a.peas", NULL), *to = woken_engine = engine_with("log=debug");

    /* The descriptor is readable exactly while events wait. */
    struct pollfd bell = { .fd = (int)peas_pollable(to), .events = POLLIN };
    CHECK(bell.fd >= 0 && poll(&bell, 1, 0) == 0 && peas_pollable(to) == bell.fd);
    CHECK((fcntl(bell.fd, F_GETFD) & FD_CLOEXEC) != 0);
    OK(peas_set_wake(to, wake, &woken));
    job = install_from(to, "a.peas", "b", peer_option(from, peer), NULL);
    CHECK(poll(&bell, 1, 10000) == 1 && poll(&bell, 1, 0) == 1);
    done(to, job);
    CHECK(same_file("a", "b"));
    OK(peas_job_info(to, job, &info));
    CHECK(info.complete == 1 && info.verb == PEAS_VERB_INSTALL && info.bytes_done == CONTENT_BYTES && info.bytes_total == CONTENT_BYTES);
    CHECK(info.pieces_done == info.pieces_total && info.bytes_from_origin + info.bytes_from_peers >= CONTENT_BYTES);
    for (unsigned i = 0; i < sizeof info.reserved / sizeof *info.reserved; i++) CHECK(info.reserved[i] == 0);

    int ended = 0, complete = 0, progress_in_batch, n;
    while (!ended) {
        CHECK((n = peas_poll(to, events, 64, 20000)) > 0);
        progress_in_batch = 0;
        for (int i = 0; i < n; i++) {
            CHECK(events[i].job == job && !ended);
            progress_in_batch += events[i].kind == PEAS_EVENT_PROGRESS;
            if (events[i].kind == PEAS_EVENT_COMPLETE) { complete++; CHECK(events[i].bytes_done == CONTENT_BYTES); }
            if (events[i].kind == PEAS_EVENT_ENDED) { ended++; CHECK(events[i].status == PEAS_OK && complete == 1); }
        }
        CHECK(progress_in_batch <= 1);
    }
    CHECK(poll(&bell, 1, 0) == 0 && peas_poll(to, events, 64, 0) == 0);
    CHECK(woken >= 1 && answer_from_wake == PEAS_INVALID && wake_thread != (long)gettid());
    OK(peas_set_wake(to, NULL, NULL));
    int woken_then = woken;

    /* Once more: all is here. Then damaged: verify finds it, install repairs it. */
    job = install_from(to, "a.peas", "b", peer, NULL);
    done(to, job);
    OK(peas_job_info(to, job, &info));
    CHECK(info.bytes_from_origin + info.bytes_from_peers == 0 && info.bytes_reused == CONTENT_BYTES);
    CHECK(woken == woken_then);
    while (peas_poll(to, events, 64, 0) > 0) {}
    OK(peas_verify(to, "a.peas", "b", NULL, &job, &why));
    done(to, job);
    { FILE *file = fopen("b", "r+b"); CHECK(file && fseek(file, 3 << 20, SEEK_SET) == 0 && fwrite("damage", 1, 6, file) == 6 && fclose(file) == 0); }
    OK(peas_verify(to, "a.peas", "b", NULL, &job, &why));
    CHECK(peas_wait(to, job, 60000, &why) == PEAS_CORRUPT);
    OK(peas_job_info(to, job, &info));
    CHECK(info.state == PEAS_STATE_ENDED && info.status == PEAS_CORRUPT && info.pieces_bad == 1 && info.complete == 0);
    int bad_files = 0;
    while ((n = peas_poll(to, events, 64, 0)) > 0)
        for (int i = 0; i < n; i++) bad_files += events[i].kind == PEAS_EVENT_NOTICE && events[i].notice == PEAS_NOTICE_BAD_FILE;
    CHECK(bad_files == 1);
    job = install_from(to, "a.peas", "b", peer, NULL);
    done(to, job);
    OK(peas_job_info(to, job, &info));
    CHECK(same_file("a", "b") && info.bytes_from_origin + info.bytes_from_peers < CONTENT_BYTES);

    /* Texts are cut at capacity, and say how long they are. */
    size_t whole = peas_describe("a.peas", text, sizeof text, &why);
    CHECK(whole > 100 && strlen(text) == whole && strstr(text, "\"name\":\"a\"") && strstr(text, "\"files\":1"));
    CHECK(peas_describe("a.peas", text, 8, &why) == whole && strlen(text) == 7 && peas_describe("a.peas", NULL, 0, NULL) == whole);
    CHECK(peas_describe("missing.peas", text, sizeof text, &why) == 0 && why.status == PEAS_NOT_FOUND);
    whole = peas_stats(from, 0, text, sizeof text);
    CHECK(whole > 100 && strlen(text) == whole && strstr(text, "\"bytes_sent\"") && strstr(text, "\"listen\":\"127.0.0.1:"));
    CHECK(peas_stats(to, 999, text, sizeof text) == 0);

    /* What changes while running. */
    { const char *o[] = { "upload_limit=1M", "download_limit=2M", NULL }; OK(peas_set(from, 0, o, &why)); }
    { peas_engine_info e; OK(peas_engine_get_info(from, &e)); CHECK(e.upload_limit == 1 << 20 && e.download_limit == 2 << 20 && e.jobs == 1); }
    OK(peas_engine_close(to, HANG_MS));
    OK(peas_engine_close(from, HANG_MS));
}

/* Pause holds, resume goes on, cancel keeps what is verified, and the next install needs only the rest. */
static void pauses_cancels_resumes(void)
{
    char peer[64];
    peas_info info;
    peas_engine *from = publisher("a", "a.peas", "upload_limit=2M"), *to = engine_with(NULL);
    const char *yes[] = { "paused=yes", NULL }, *no[] = { "paused=no", NULL };
    peas_job job = install_from(to, "a.peas", "c", peer_option(from, peer), "paused=yes");
    CHECK(peas_wait(to, job, 300, &why) == PEAS_TIMEOUT);
    OK(peas_job_info(to, job, &info));
    CHECK(info.paused == PEAS_PAUSE_HOST && info.bytes_done == 0 && info.complete == 0);
    OK(peas_set(to, job, no, &why));
    double end = now_s() + 30;
    do { OK(peas_job_info(to, job, &info)); CHECK(now_s() < end); usleep(10000); } while (info.bytes_done == 0);
    CHECK(info.paused == PEAS_PAUSE_NONE);
    OK(peas_set(to, job, yes, &why));
    OK(peas_cancel(to, job));
    CHECK(peas_wait(to, job, 10000, &why) == PEAS_CANCELLED);
    OK(peas_job_info(to, job, &info));
    CHECK(info.state == PEAS_STATE_ENDED && info.status == PEAS_CANCELLED && info.bytes_done < CONTENT_BYTES);
    CHECK(peas_set(to, job, no, &why) == PEAS_NOT_FOUND);
    { const char *o[] = { "upload_limit=0", NULL }; OK(peas_set(from, 0, o, &why)); }
    job = install_from(to, "a.peas", "c", peer, NULL);
    done(to, job);
    OK(peas_job_info(to, job, &info));
    CHECK(info.bytes_reused > 0 && same_file("a", "c"));
    /* A change of mind that comes before the job has begun counts too, either way. */
    job = install_from(to, "a.peas", "c1", peer, "paused=yes");
    OK(peas_set(to, job, no, &why));
    done(to, job);
    job = install_from(to, "a.peas", "c2", peer, NULL);
    OK(peas_set(to, job, yes, &why));
    OK(peas_job_info(to, job, &info));
    CHECK(info.paused == PEAS_PAUSE_HOST || info.complete);
    OK(peas_set(to, job, no, &why));
    done(to, job);
    OK(peas_engine_close(from, HANG_MS));
    OK(peas_engine_close(to, HANG_MS));
}

struct inbox {
    peas_engine *engine, *peer;
    _Atomic int events, inside, overlaps, complete, ended, closed;
    _Atomic long thread;
    int close_at_end, replace;
};

static void second(void *user_data, const peas_event *event)
{
    struct inbox *inbox = user_data;
    inbox->overlaps += inbox->inside++;
    if (event->kind == PEAS_EVENT_ENDED) inbox->ended++;
    if (event->kind == PEAS_EVENT_COMPLETE) inbox->complete++;
    inbox->inside--;
}

static void first(void *user_data, const peas_event *event)
{
    struct inbox *inbox = user_data;
    peas_info info;
    peas_event none;
    char text[4096];
    inbox->overlaps += inbox->inside++;
    inbox->thread = (long)gettid();
    inbox->events++;
    /* Calls back in. */
    CHECK(peas_job_info(inbox->engine, event->job, &info) == PEAS_OK && info.verb == PEAS_VERB_INSTALL);
    CHECK(peas_stats(inbox->engine, 0, text, sizeof text) > 0);
    CHECK(peas_set(inbox->engine, 0, NULL, NULL) == PEAS_OK);
    CHECK(peas_poll(inbox->engine, &none, 1, 0) == PEAS_BUSY);
    if (event->kind == PEAS_EVENT_COMPLETE) {
        inbox->complete++;
        if (inbox->replace) CHECK(peas_set_callback(inbox->engine, second, inbox) == PEAS_OK);
    }
    if (event->kind == PEAS_EVENT_ENDED) {
        if (inbox->close_at_end) { CHECK(peas_engine_close(inbox->engine, HANG_MS) == PEAS_OK); inbox->closed++; }
        inbox->ended++;
    }
    inbox->inside--;
}

static void callbacks_may_call_back(void)
{
    char peer[64];
    peas_job job;
    peas_engine *from = publisher("a", "a.peas", NULL);
    peer_option(from, peer);

    struct inbox by_thread = { .engine = engine_with(NULL) };
    OK(peas_set_callback(by_thread.engine, first, &by_thread));
    job = install_from(by_thread.engine, "a.peas", "d", peer, NULL);
    wait_for(&by_thread.ended);
    CHECK(by_thread.complete == 1 && by_thread.ended == 1 && by_thread.thread != (long)gettid());
    OK(peas_set_callback(by_thread.engine, NULL, NULL));
    CHECK(by_thread.inside == 0);
    peas_event none;
    CHECK(peas_poll(by_thread.engine, &none, 1, 0) == 0);

    /* On the host's thread, from its main loop. */
    struct inbox by_dispatch = { .engine = by_thread.engine };
    job = install_from(by_thread.engine, "a.peas", "d", peer, NULL);
    (void)job;
    while (!by_dispatch.ended) CHECK(peas_dispatch(by_dispatch.engine, second, &by_dispatch, 10000) > 0);
    CHECK(by_dispatch.complete == 1 && by_dispatch.overlaps == 0);
    OK(peas_engine_close(by_thread.engine, HANG_MS));

    /* A callback that replaces itself, and one that closes its engine. */
    struct inbox replaced = { .engine = engine_with(NULL), .replace = 1 };
    OK(peas_set_callback(replaced.engine, first, &replaced));
    install_from(replaced.engine, "a.peas", "e", peer, NULL);
    wait_for(&replaced.ended);
    CHECK(replaced.complete == 1 && replaced.ended == 1 && replaced.overlaps == 0);
    OK(peas_engine_close(replaced.engine, HANG_MS));
    struct inbox closing = { .engine = engine_with(NULL), .close_at_end = 1 };
    OK(peas_set_callback(closing.engine, first, &closing));
    install_from(closing.engine, "a.peas", "f", peer, NULL);
    wait_for(&closing.ended);
    CHECK(closing.closed == 1 && peas_cancel(closing.engine, 1) == PEAS_CLOSED);
    OK(peas_engine_close(from, HANG_MS));
}

#define HEX8(digits) digits digits digits digits digits digits digits digits

/* Swarms that are not open: who has no secret is told so, who has a wrong one gets nothing, who has the right one is in. */
static void closed_swarms_are_entered_with_a_secret(void)
{
    static const char right[] = "swarm_secret=" HEX8("5ec2e7aa"), wrong[] = "swarm_secret=" HEX8("5ec2e7ab");
    const char *secret[] = { "access=secret", NULL }, *with[] = { right, NULL };
    const char *members[] = { "access=members:" HEX8("d75a9801"), NULL };
    char peer[64], text[65536];
    peas_job job;
    peas_info info;
    peas_engine *from = engine_with(NULL), *to = engine_with(NULL);
    OK(peas_create(from, "a", "secret.peas", secret, &job, &why));
    done(from, job);
    CHECK(peas_describe("secret.peas", text, sizeof text, &why) > 0 && strstr(text, "\"access\":\"secret\""));
    OK(peas_share(from, "secret.peas", "a", NULL, &job, &why));
    CHECK(peas_wait(from, job, 60000, &why) == PEAS_INVALID && strstr(why.message, "secret"));
    OK(peas_share(from, "secret.peas", "a", with, &job, &why));
    done(from, job);
    job = install_from(to, "secret.peas", "s", peer_option(from, peer), wrong);
    CHECK(peas_wait(to, job, 1000, &why) == PEAS_TIMEOUT);
    OK(peas_job_info(to, job, &info));
    CHECK(info.bytes_done == 0 && info.peers == 0);
    OK(peas_cancel(to, job));
    job = install_from(to, "secret.peas", "s", peer, right);
    done(to, job);
    CHECK(same_file("a", "s"));

    OK(peas_create(from, "a", "members.peas", members, &job, &why));
    done(from, job);
    CHECK(peas_describe("members.peas", text, sizeof text, &why) > 0 && strstr(text, "\"authority\":\"" HEX8("d75a9801") "\""));
    job = install_from(to, "members.peas", "m", peer, right);
    CHECK(peas_wait(to, job, 60000, &why) == PEAS_INVALID && strstr(why.message, "certificate"));
    { const char *o[] = { "trust=file", "certificate=00", NULL };
      CHECK(peas_install(to, "members.peas", "m", o, &job, &why) == PEAS_INVALID && strstr(why.message, "certificate")); }
    { const char *o[] = { "web_ca=missing.pem", NULL }; peas_engine *none;
      peas_status status = peas_engine_new(o, &none, &why);
      CHECK(none == NULL && (status == PEAS_NOT_FOUND ? strstr(why.message, "missing.pem") : status == PEAS_INVALID ? strstr(why.message, "no https") : NULL)); }
    { const char *o[] = { "web_ca=a", NULL }; peas_engine *none;
      CHECK(peas_engine_new(o, &none, &why) == PEAS_INVALID && none == NULL && strstr(why.message, "web_ca")); }
    OK(peas_engine_close(from, HANG_MS));
    OK(peas_engine_close(to, HANG_MS));
}

int main(int argc, char **argv)
{
    CHECK(argc == 2 && chdir(argv[1]) == 0);
    nonsense_is_answered();
    installs_and_tells();
    pauses_cancels_resumes();
    callbacks_may_call_back();
    closed_swarms_are_entered_with_a_secret();
    puts("all well");
    return 0;
}
