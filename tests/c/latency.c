/*
 * How long a host is inside peas while the engine is as busy as it can be: two engines, one gives a content to the other over
 * the loopback, and this thread asks a thousand times a second. Of a hundred answers ninety-nine must come within a millisecond.
 *
 * usage: latency FOLDER MIB
 */
#include "host.h"

#define LIMIT_S 1e-3

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static double took[1 << 20];
    char peer[64];
    peas_event events[16];
    peas_info info;
    size_t count = 0;
    CHECK(argc == 3 && chdir(argv[1]) == 0);
    size_t bytes = (size_t)atol(argv[2]) << 20;
    write_file("a", bytes, 1);
    peas_engine *from = publisher("a", "a.peas", NULL), *to = engine_with(NULL);
    double begun = now_s();
    peas_job job = install_from(to, "a.peas", "b", peer_option(from, peer), NULL);
    do {
        double start = now_s();
        OK(peas_job_info(to, job, &info));
        CHECK(peas_poll(to, events, 16, 0) >= 0);
        took[count++] = now_s() - start;
        CHECK(count < sizeof took / sizeof *took);
        usleep(1000);
    } while (!info.complete);
    double all = now_s() - begun;
    /* The control: a call that waits is seen by the same clock. */
    double start = now_s();
    CHECK(peas_wait(to, install_from(to, "a.peas", "c", peer, "paused=yes"), 2, NULL) == PEAS_TIMEOUT && now_s() - start > LIMIT_S);
    qsort(took, count, sizeof *took, by_size);
    double p99 = took[count * 99 / 100];
    printf("%zu MiB in %.2f s; info and poll, %zu times: median %.1f us, 99%% %.1f us, worst %.1f us\n", bytes >> 20, all, count,
           took[count / 2] * 1e6, p99 * 1e6, took[count - 1] * 1e6);
    CHECK(count >= 100 && p99 < LIMIT_S);
    OK(peas_engine_close(from, HANG_MS));
    OK(peas_engine_close(to, HANG_MS));
    puts("all well");
    return 0;
}
