/* What the C tests share: checks, files, engines on the loopback. */
#ifndef PEAS_TEST_HOST_H
#define PEAS_TEST_HOST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <peas.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A call that must succeed; says why it did not. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        peas_status status_ = (call);                                                                                  \
        if (status_ != PEAS_OK) {                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, peas_status_string(status_), why.message); \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CONTENT_BYTES (6u << 20)
#define HANG_MS 60000 /* for closing where the time is not what is tested: longer than any busy machine needs */

/* Also how many threads ThreadSanitizer has of its own, from the first on that is made. */
#ifdef __SANITIZE_THREAD__
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

static _Thread_local peas_error why;

static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline int entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0;
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* Waits until a folder of /proc has no more entries than before: a thread that was joined is seen there a moment longer. */
static inline void entries_fall_to(const char *folder, int most)
{
    double end = now_s() + 60;
    while (entries(folder) > most) {
        if (now_s() > end) {
            fprintf(stderr, "%s: %d entries, there were %d\n", folder, entries(folder), most);
            exit(1);
        }
        usleep(1000);
    }
}

static inline void write_file(const char *path, size_t bytes, unsigned seed)
{
    FILE *file = fopen(path, "wb");
    unsigned char block[4096];
    CHECK(file != NULL);
    for (size_t at = 0; at < bytes; at += sizeof block) {
        for (size_t i = 0; i < sizeof block; i++) {
            seed = seed * 1664525u + 1013904223u;
            block[i] = (unsigned char)(seed >> 24);
        }
        size_t part = bytes - at < sizeof block ? bytes - at : sizeof block;
        CHECK(fwrite(block, 1, part, file) == part);
    }
    CHECK(fclose(file) == 0);
}

static inline int same_file(const char *a, const char *b)
{
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    int same = fa != NULL && fb != NULL;
    char ba[65536], bb[65536];
    while (same) {
        size_t na = fread(ba, 1, sizeof ba, fa), nb = fread(bb, 1, sizeof bb, fb);
        same = na == nb && memcmp(ba, bb, na) == 0;
        if (na == 0) break;
    }
    if (fa != NULL) fclose(fa);
    if (fb != NULL) fclose(fb);
    return same;
}

/* Until a flag is set by another thread. */
static inline void wait_for(_Atomic int *flag)
{
    double end = now_s() + 60;
    while (!*flag) { CHECK(now_s() < end); usleep(1000); }
}

/* An engine on the loopback; `more` may be NULL. */
static inline peas_engine *engine_with(const char *more)
{
    const char *options[] = { "listen=127.0.0.1:0", "scope=any", "threads=1", "disk_threads=1", more, NULL };
    peas_engine *engine = NULL;
    OK(peas_engine_new(options, &engine, &why));
    return engine;
}

/* "peer=127.0.0.1:PORT" of an engine. */
static inline const char *peer_option(peas_engine *engine, char option[64])
{
    peas_engine_info info;
    OK(peas_engine_get_info(engine, &info));
    CHECK(info.port != 0 && strlen(info.peer_id) == 64);
    snprintf(option, 64, "peer=127.0.0.1:%u", info.port);
    return option;
}

static inline peas_job install_from(peas_engine *engine, const char *pea, const char *target, const char *peer, const char *more)
{
    const char *options[] = { "trust=file", peer, more, NULL };
    peas_job job = 0;
    OK(peas_install(engine, pea, target, options, &job, &why));
    CHECK(job != 0);
    return job;
}

/* The job is done within a minute; if not, says what is known about it. */
static inline void done(peas_engine *engine, peas_job job)
{
    static char text[1 << 16];
    peas_status status = peas_wait(engine, job, 60000, &why);
    if (status == PEAS_OK) return;
    peas_stats(engine, job, text, sizeof text);
    fprintf(stderr, "job %d: %s: %s\n%s\n", (int)job, peas_status_string(status), why.message, text);
    exit(1);
}

/* Makes a pea of a file, and an engine that shares it. */
static inline peas_engine *publisher(const char *source, const char *pea, const char *more)
{
    peas_engine *engine = engine_with(more);
    peas_job job = 0;
    OK(peas_create(engine, source, pea, NULL, &job, &why));
    done(engine, job);
    OK(peas_share(engine, pea, source, NULL, &job, &why));
    done(engine, job);
    return engine;
}

#endif
