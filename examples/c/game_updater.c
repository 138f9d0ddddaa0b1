/*
 * A launcher that keeps a game up to date, as a real one would: sixty frames a second, and never more than a moment of
 * a frame inside peas - it measures that and says so at the end.
 *
 *   cc game_updater.c $(pkg-config --cflags --libs peas) -o game_updater
 *   ./game_updater release.peas ~/games/meadow
 *
 * Keys: p pauses and goes on, g says that the game runs (uploads shrink to a trickle) or stopped, q quits at once; the
 * next start goes on where this one was. -e and -j hand an option to the engine or the job: -j peer=192.0.2.1:7000.
 *
 * The release must be signed by the studio. Its public key is compiled in, as bytes: nothing that is downloaded can change
 * it. An older release than one that was accepted before is refused, however well it is signed.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <inttypes.h>
#include <peas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef STUDIO_KEY /* Yours, from `peas keygen`. */
#define STUDIO_KEY                                                                                                     \
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72,   \
        0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a
#endif

static const unsigned char studio_key[32] = { STUDIO_KEY };

#define FRAME_NS (1000000000L / 60)
#define OPTIONS_MAX 32
#define TRICKLE "upload_limit=64K" /* while the game runs */

/* ------------------------------------------------------------------ time spent inside peas */

/* By the clock, and in CPU time of this thread: the second does not grow when other programs want the machine, too. */
static struct {
    uint64_t worst_ns, worst_cpu_ns, frames, slow_frames;
    uint64_t this_frame_ns, this_frame_cpu_ns;
} inside;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define INSIDE(call)                                                                                                   \
    do {                                                                                                               \
        uint64_t begun_ = clock_ns(CLOCK_MONOTONIC), cpu_ = clock_ns(CLOCK_THREAD_CPUTIME_ID);                         \
        call;                                                                                                          \
        inside.this_frame_cpu_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_;                                          \
        inside.this_frame_ns += clock_ns(CLOCK_MONOTONIC) - begun_;                                                    \
    } while (0)

static void end_of_frame(void)
{
    inside.frames++;
    if (inside.this_frame_ns > inside.worst_ns) inside.worst_ns = inside.this_frame_ns;
    if (inside.this_frame_cpu_ns > inside.worst_cpu_ns) inside.worst_cpu_ns = inside.this_frame_cpu_ns;
    if (inside.this_frame_ns > 1000000) inside.slow_frames++;
    inside.this_frame_ns = inside.this_frame_cpu_ns = 0;
}

/* ------------------------------------------------------------------ the terminal */

static struct termios former;
static int raw;

static void restore_terminal(void)
{
    if (raw) tcsetattr(STDIN_FILENO, TCSANOW, &former);
}

static void prepare_terminal(void)
{
    if (tcgetattr(STDIN_FILENO, &former) != 0) return;
    struct termios quiet = former;
    quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    quiet.c_cc[VMIN] = 0;
    quiet.c_cc[VTIME] = 0;
    raw = tcsetattr(STDIN_FILENO, TCSANOW, &quiet) == 0;
    atexit(restore_terminal);
}

static char key(void)
{
    char pressed;
    return raw && read(STDIN_FILENO, &pressed, 1) == 1 ? pressed : 0;
}

static void size_text(char text[16], uint64_t bytes)
{
    static const char unit[] = "BKMGT";
    double value = (double)bytes;
    int at = 0;
    while (value >= 999.5 && unit[at + 1] != 0) value /= 1024, at++;
    snprintf(text, 16, value < 10 && at > 0 ? "%.1f%c" : "%.0f%c", value, unit[at]);
}

static void draw(const peas_info *info, int game_runs)
{
    static const char *const doing[] = { "", "checking", "updating", "sharing", "done", "putting in place" };
    char bar[25], done[16], total[16], rate[16], up[16], left[40] = "";
    const char *what = info->paused == PEAS_PAUSE_HOST ? "paused"
        : info->paused == PEAS_PAUSE_DISK_FULL ? "disk full"
        : info->paused == PEAS_PAUSE_DISK_ERROR ? "disk error"
        : info->state < sizeof doing / sizeof *doing ? doing[info->state] : "";
    double part = info->bytes_total > 0 ? (double)info->bytes_done / (double)info->bytes_total : 0;
    uint64_t received = info->bytes_from_origin + info->bytes_from_peers + info->bytes_from_web;
    int filled = (int)(part * (sizeof bar - 1));
    for (int i = 0; i < (int)sizeof bar - 1; i++) bar[i] = i < filled ? '#' : '.';
    bar[sizeof bar - 1] = 0;
    size_text(done, info->bytes_done);
    size_text(total, info->bytes_total);
    size_text(rate, info->rate_received);
    size_text(up, info->rate_sent);
    if (info->remaining_ms > 0) snprintf(left, sizeof left, ", %" PRId64 " s left", (info->remaining_ms + 999) / 1000);
    printf("\r[%s] %3.0f%% %s/%s  %s/s down %s/s up  %u %s, %.0f%% from peers  %s%s%s\033[K", bar, part * 100, done, total,
           rate, up, info->peers, info->peers == 1 ? "peer" : "peers",
           received > 0 ? 100.0 * (double)info->bytes_from_peers / (double)received : 0.0, what, left,
           game_runs ? " (game runs)" : "");
    fflush(stdout);
}

/* ------------------------------------------------------------------ what is installed, what is offered */

/* A number out of the JSON of peas_describe. */
static uint64_t number(const char *json, const char *name)
{
    char field[64];
    snprintf(field, sizeof field, "\"%s\":", name);
    const char *at = strstr(json, field);
    return at != NULL ? strtoull(at + strlen(field), NULL, 10) : 0;
}

/* Only what a person sees: whether to trust it is decided by peas_install. */
static int describe(const char *label, const char *pea)
{
    peas_error error;
    char total[16];
    size_t length = peas_describe(pea, NULL, 0, &error);
    char *json = length > 0 ? malloc(length + 1) : NULL;
    if (json == NULL || peas_describe(pea, json, length + 1, &error) != length) {
        free(json);
        return 0;
    }
    size_text(total, number(json, "bytes"));
    printf("%s release %" PRIu64 ": %" PRIu64 " files, %s\n", label, number(json, "release"), number(json, "files"), total);
    free(json);
    return 1;
}

/* By way of a second name, so that a crash leaves the old file or the new one. */
static int copy_file(const char *from, const char *to)
{
    char block[65536];
    size_t count, length = strlen(to);
    char *part = malloc(length + 6);
    FILE *in = fopen(from, "rb"), *out = NULL;
    int good = 0;
    if (part != NULL && in != NULL) {
        memcpy(part, to, length);
        memcpy(part + length, ".part", 6);
        out = fopen(part, "wb");
    }
    if (out != NULL) {
        good = 1;
        while (good && (count = fread(block, 1, sizeof block, in)) > 0) good = fwrite(block, 1, count, out) == count;
        good = good && !ferror(in) && fflush(out) == 0 && fsync(fileno(out)) == 0;
        good = fclose(out) == 0 && good && rename(part, to) == 0;
    }
    if (in != NULL) fclose(in);
    free(part);
    return good;
}

/* ------------------------------------------------------------------ the game loop */

struct launcher {
    peas_engine *engine;
    peas_job job;
    int complete, ended, paused, game_runs, quit;
    int32_t status;
    char message[384];
};

/* Called from peas_dispatch, on this very thread. */
static void on_event(void *user_data, const peas_event *event)
{
    struct launcher *launcher = user_data;
    switch (event->kind) {
    case PEAS_EVENT_COMPLETE: launcher->complete = 1; break;
    case PEAS_EVENT_NOTICE: printf("\r%s\033[K\n", event->message); break;
    case PEAS_EVENT_ENDED:
        launcher->ended = 1;
        launcher->status = event->status;
        snprintf(launcher->message, sizeof launcher->message, "%s", event->message);
        break;
    default: break;
    }
}

static void on_key(struct launcher *launcher, char pressed)
{
    const char *option[] = { NULL, NULL };
    switch (pressed) {
    case 'p':
        launcher->paused = !launcher->paused;
        option[0] = launcher->paused ? "paused=yes" : "paused=no";
        INSIDE(peas_set(launcher->engine, launcher->job, option, NULL));
        break;
    case 'g':
        launcher->game_runs = !launcher->game_runs;
        option[0] = launcher->game_runs ? TRICKLE : "upload_limit=0";
        INSIDE(peas_set(launcher->engine, 0, option, NULL));
        break;
    case 'q': launcher->quit = 1; break;
    default: break;
    }
}

static void run(struct launcher *launcher)
{
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!launcher->ended && !launcher->quit) {
        peas_info info;
        peas_status known = PEAS_OK;
        INSIDE(peas_dispatch(launcher->engine, on_event, launcher, 0));
        INSIDE(known = peas_job_info(launcher->engine, launcher->job, &info));
        on_key(launcher, key());
        end_of_frame();
        if (known == PEAS_OK && inside.frames % 6 == 0) draw(&info, launcher->game_runs);

        next.tv_nsec += FRAME_NS;
        if (next.tv_nsec >= 1000000000L) next.tv_nsec -= 1000000000L, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

int main(int argc, char **argv)
{
    char trust[16 + 64] = "trust=key:", state[4096], installed[4096];
    const char *engine_options[OPTIONS_MAX] = { NULL }, *job_options[OPTIONS_MAX] = { NULL };
    int engine_count = 0, job_count = 0, at = 1;
    struct launcher launcher = { 0 };
    peas_error error;

    for (; at + 1 < argc && argv[at][0] == '-' && engine_count < OPTIONS_MAX - 3 && job_count < OPTIONS_MAX - 3; at += 2) {
        if (strcmp(argv[at], "-e") == 0) engine_options[engine_count++] = argv[at + 1];
        else if (strcmp(argv[at], "-j") == 0) job_options[job_count++] = argv[at + 1];
        else break;
    }
    if (argc - at != 2) return fprintf(stderr, "usage: game_updater [-e ENGINE_OPTION] [-j JOB_OPTION] PEA FOLDER\n"), 2;
    const char *pea = argv[at], *folder = argv[at + 1];

    for (int i = 0; i < 32; i++) sprintf(trust + strlen(trust), "%02x", studio_key[i]);
    snprintf(state, sizeof state, "state_dir=%s.state", folder);
    snprintf(installed, sizeof installed, "%s.installed.peas", folder);
    engine_options[engine_count++] = state;
    job_options[job_count++] = trust;

    /* While the splash screen shows: these may block for some milliseconds. */
    if (!describe("installed", installed)) puts("installed nothing yet");
    if (!describe("offered  ", pea)) return fprintf(stderr, "%s is not a pea\n", pea), 1;
    if (peas_engine_new(engine_options, &launcher.engine, &error) != PEAS_OK
        || peas_install(launcher.engine, pea, folder, job_options, &launcher.job, &error) != PEAS_OK) {
        fprintf(stderr, "%s: %s\n", peas_status_string(error.status), error.message);
        peas_engine_close(launcher.engine, 0);
        return 1;
    }
    prepare_terminal();
    run(&launcher);

    uint64_t begun = clock_ns(CLOCK_MONOTONIC);
    peas_status closed = peas_engine_close(launcher.engine, 500);
    double close_ms = (double)(clock_ns(CLOCK_MONOTONIC) - begun) / 1e6;
    putchar('\n');
    if (launcher.complete && !copy_file(pea, installed)) fprintf(stderr, "%s: cannot be written\n", installed);
    if (launcher.complete) puts("ready to play");
    else if (launcher.quit) puts("quit; the next start goes on from here");
    else if (launcher.status == PEAS_ROLLBACK) printf("refused: %s\n", launcher.message);
    else printf("failed: %s: %s\n", peas_status_string(launcher.status), launcher.message);
    printf("%" PRIu64 " frames; inside peas at most %.3f ms of a frame (CPU %.3f ms), %" PRIu64 " frames above 1 ms; closed in %.0f ms (%s)\n",
           inside.frames, (double)inside.worst_ns / 1e6, (double)inside.worst_cpu_ns / 1e6, inside.slow_frames, close_ms,
           peas_status_string(closed));
    return launcher.complete || launcher.quit ? 0 : 3;
}
