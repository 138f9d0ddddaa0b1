/*
 * Calls in no order, with arguments that make no sense: several threads call any export with NULL, closed and invented handles,
 * jobs that never were, capacities below zero, options that are not. What must hold: every answer is one of peas.h, nothing hangs,
 * nothing dies, and the engines still close.
 *
 * usage: sequence FOLDER SEED CALLS
 */
#include "host.h"

#include <limits.h>

#define THREADS 3
#define ENGINES 4

static _Atomic(peas_engine *) engines[ENGINES];
static _Atomic long answered[32];
static unsigned seed;
static long calls_each;

static unsigned next(unsigned *state, unsigned below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static const char *const options_pool[] = {
    "trust=file", "paused=yes", "paused=no", "upload_limit=1K", "upload_limit=", "upload_limit=-1", "upload_limit=99999999999999999999",
    "log=debug", "log=off", "nonsense=1", "no equals sign", "", "=", "trust=key:zz", "threshold=255", "piece_size=3", "piece_size=64K",
    "peer=127.0.0.1:9", "peer=example", "share=1.5x", "share=-1s", "chance=7", "name=x", "owner=:1", "channel=", "expires=1",
    "memory_limit=0", "links=0", "neighbors=70000", "threads=1", "\xff\xfe", "trust=file", "release=18446744073709551616",
    "state_dir=", "identity=00", "listen=off", "scope=any", "web=ftp://", "copies_limit=nan", "pin=0",
};
static const char *const paths_pool[] = {
    "a", "a.peas", "out", "out/deep/deeper", "", ".", "/", "/proc/self/mem", "missing", "\xc3", "a/b", "noise.peas", "folder", "dev-null",
    "x\ny",
};
#define PICK(pool) (pool[next(state, sizeof pool / sizeof *pool)])

static const char *path(unsigned *state) { return next(state, 12) == 0 ? NULL : PICK(paths_pool); }

/* At most six options, with a NULL at the end; sometimes none at all. */
static const char *const *options(unsigned *state, const char *list[8], const char *first)
{
    int count = 0;
    if (next(state, 6) == 0) return NULL;
    if (first != NULL) list[count++] = first;
    for (unsigned n = next(state, 4); n > 0; n--) list[count++] = PICK(options_pool);
    list[count] = NULL;
    return list;
}

static peas_engine *engine_of(unsigned *state)
{
    switch (next(state, 16)) {
    case 0: return NULL;
    case 1: return (peas_engine *)(uintptr_t)(((uintptr_t)next(state, 1u << 20) << 12) ^ next(state, 1u << 12));
    case 2: return (peas_engine *)(void *)state;
    default: return engines[next(state, ENGINES)]; /* may be closed at this very moment */
    }
}

static peas_job job_of(unsigned *state)
{
    peas_job job = next(state, 24);
    return next(state, 10) == 0 ? (peas_job)0 - job : job;
}

static void count(int64_t answer)
{
    if (answer < -17) { fprintf(stderr, "seed %u: an answer of %lld\n", seed, (long long)answer); exit(1); }
    answered[answer < 0 ? -answer : 0]++;
}

static void on_event(void *user_data, const peas_event *event)
{
    CHECK(user_data == NULL && event->kind >= PEAS_EVENT_PROGRESS && event->kind <= PEAS_EVENT_LOG);
    CHECK(memchr(event->message, 0, sizeof event->message) != NULL);
}

static void on_wake(void *user_data) { CHECK(user_data == NULL); }

static peas_engine *fresh(unsigned *state, const char *list[8])
{
    const char *wild[] = { "listen=127.0.0.1:0", "threads=1", "disk_threads=1", PICK(options_pool), NULL };
    peas_engine *made = NULL;
    peas_error error;
    if (next(state, 4) == 0) count(peas_engine_new(options(state, list, "listen=off"), &made, &error));
    else if (next(state, 2) == 0) count(peas_engine_new(wild, &made, NULL));
    if (made == NULL) made = engine_with(NULL);
    return made;
}

static void one_call(unsigned *state)
{
    const char *list[8];
    char text[300];
    peas_error error, *reason = next(state, 2) ? &error : NULL;
    peas_event events[3];
    peas_engine_info engine_info;
    peas_info info;
    peas_job made, *job = next(state, 4) ? &made : NULL;
    size_t room = next(state, 3) ? sizeof text : next(state, 2) ? 1 : 0;
    peas_engine *engine = engine_of(state);
    int32_t wait_ms = (int32_t)next(state, 3);
    memset(text, 0x55, sizeof text);
    switch (next(state, 22)) {
    case 0: CHECK(peas_version() == PEAS_VERSION && strlen(peas_version_string()) >= 5); break;
    case 1: CHECK(strlen(peas_status_string((int32_t)next(state, 64) - 32)) > 6 && peas_status_string(INT_MIN) != NULL); break;
    case 2: {
        if (next(state, 20) != 0) break; /* dear: threads and a listener */
        unsigned at = next(state, ENGINES);
        peas_engine *before = atomic_exchange(&engines[at], fresh(state, list));
        count(peas_engine_close(before, next(state, 2) * 2000));
        break;
    }
    case 3: count(peas_engine_get_info(engine, next(state, 8) ? &engine_info : NULL)); break;
    case 4: count(peas_set(engine, next(state, 2) ? 0 : job_of(state), options(state, list, NULL), reason)); break;
    case 5: count(peas_create(engine, path(state), "made.peas", options(state, list, NULL), job, reason)); break;
    case 6: count(peas_share(engine, path(state), path(state), options(state, list, NULL), job, reason)); break;
    case 7:
    case 8: count(peas_install(engine, path(state), next(state, 2) ? "out" : "dev-null/x", options(state, list, "trust=file"), job, reason)); break;
    case 9: count(peas_verify(engine, path(state), path(state), options(state, list, NULL), job, reason)); break;
    case 10:
    case 11: count(peas_cancel(engine, job_of(state))); break;
    case 12: count(peas_wait(engine, job_of(state), wait_ms, reason)); break;
    case 13: count(peas_job_info(engine, job_of(state), next(state, 8) ? &info : NULL)); break;
    case 14: count(peas_refresh(engine, job_of(state), next(state, 2) ? "refreshed.peas" : NULL, reason)); break;
    case 15: {
        size_t whole = peas_describe(path(state), room ? text : NULL, room, reason);
        if (room > 0) CHECK(memchr(text, 0, room) != NULL && strlen(text) <= whole);
        break;
    }
    case 16: {
        size_t whole = peas_stats(engine, job_of(state), room ? text : NULL, room);
        if (room > 0) CHECK(memchr(text, 0, room) != NULL && strlen(text) <= whole);
        break;
    }
    case 17: {
        int32_t taken = peas_poll(engine, next(state, 8) ? events : NULL, next(state, 4) ? 3 : (int32_t)next(state, 3) - 2, wait_ms);
        CHECK(taken <= 3);
        count(taken > 0 ? 0 : taken);
        for (int32_t i = 0; i < taken; i++) on_event(NULL, &events[i]);
        break;
    }
    case 18: count(peas_dispatch(engine, next(state, 8) ? on_event : NULL, NULL, wait_ms) < 0 ? PEAS_INVALID : 0); break;
    case 19: count(peas_set_callback(engine, next(state, 2) ? on_event : NULL, NULL)); break;
    case 20: CHECK(peas_pollable(engine) >= -1); break;
    default: count(peas_set_wake(engine, next(state, 2) ? on_wake : NULL, NULL)); break;
    }
}

static void *caller(void *number)
{
    unsigned state = seed * 31 + (unsigned)(size_t)number * 7919;
    for (long i = 0; i < calls_each; i++) one_call(&state);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    peas_job job;
    CHECK(argc == 4 && chdir(argv[1]) == 0);
    seed = (unsigned)atol(argv[2]);
    calls_each = atol(argv[3]) / THREADS;
    write_file("a", 200000, 1);
    write_file("noise.peas", 4096, 2);
    CHECK(mkdir("folder", 0777) == 0 && symlink("/dev/null", "dev-null") == 0);
    int fds = entries("/proc/self/fd"), tasks = entries("/proc/self/task") + UNDER_TSAN;
    for (int i = 0; i < ENGINES; i++) engines[i] = engine_with(NULL);
    OK(peas_create(engines[0], "a", "a.peas", NULL, &job, &why));
    done(engines[0], job);
    for (size_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, caller, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < ENGINES; i++) {
        double begun = now_s();
        peas_status status = peas_engine_close(engines[i], HANG_MS);
        if (status != PEAS_OK) { fprintf(stderr, "seed %u: close: %s after %.0f ms\n", seed, peas_status_string(status), (now_s() - begun) * 1e3); return 1; }
    }
    entries_fall_to("/proc/self/task", tasks);
    entries_fall_to("/proc/self/fd", fds);
    printf("seed %u:", seed);
    for (int i = 0; i < 18; i++)
        if (answered[i] > 0) printf(" %s %ld", peas_status_string(-i), answered[i]);
    putchar('\n');
    /* No bug was met, and the calls were not all turned away at the door. */
    CHECK(answered[-PEAS_INTERNAL] == 0 && answered[0] > calls_each / 20 && answered[-PEAS_CLOSED] > 0 && answered[-PEAS_INVALID] > 0);
    CHECK(access("dev-null/x", F_OK) != 0);
    puts("all well");
    return 0;
}
