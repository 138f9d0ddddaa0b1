/*
 * Destinations that hang. The folder `slow` is a mirror of `fast`, kept by a program (bindfs) that this one stops and lets go on:
 * while it is stopped, every call on a file there hangs, as with a dead server or a dying disk. Engines must close in time all the
 * same, say that a thread was left behind, answer questions meanwhile, and leave nothing once the disk is back.
 *
 * usage: hung_disk FOLDER      as root, with bindfs installed
 */
#include "host.h"

#define CLOSE_MS 1000

static pid_t mirror, asking;

static int is_mounted(void)
{
    struct stat outside, inside;
    return stat(".", &outside) == 0 && stat("slow", &inside) == 0 && outside.st_dev != inside.st_dev;
}

static void unmount(void)
{
    if (mirror <= 0) return;
    kill(mirror, SIGCONT);
    kill(mirror, SIGTERM);
    waitpid(mirror, NULL, 0);
    mirror = 0;
}

static void mount_mirror(void)
{
    CHECK(mkdir("fast", 0777) == 0 && mkdir("slow", 0777) == 0);
    mirror = fork();
    CHECK(mirror >= 0);
    if (mirror == 0) {
        execlp("bindfs", "bindfs", "-f", "fast", "slow", (char *)NULL);
        _exit(127);
    }
    atexit(unmount);
    double end = now_s() + 60;
    while (!is_mounted()) {
        if (waitpid(mirror, NULL, WNOHANG) != 0) {
            mirror = 0;
            fprintf(stderr, "bindfs ended: is it installed, and may this user mount?\n");
            exit(1);
        }
        CHECK(now_s() < end);
        usleep(1000);
    }
}

/* Stops the mirror. The control: a program that asks for a file there is not answered. */
static void hang(const char *probe)
{
    struct stat st;
    CHECK(kill(mirror, SIGSTOP) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(stat(probe, &st) == 0 ? 0 : 1);
    usleep(200000);
    CHECK(waitpid(child, NULL, WNOHANG) == 0);
    asking = child;
}

/* One who asks the disk cannot even be killed before it answers. */
static void go_on(void)
{
    CHECK(kill(mirror, SIGCONT) == 0);
    CHECK(waitpid(asking, NULL, 0) == asking);
}

/* Questions are answered as ever: none waits for a disk. */
static double slowest_answer(peas_engine *engine, peas_job job)
{
    static char text[1 << 16];
    peas_event event;
    peas_info info;
    double worst = 0;
    for (int i = 0; i < 200; i++) {
        double begun = now_s();
        OK(peas_job_info(engine, job, &info));
        CHECK(peas_poll(engine, &event, 1, 0) >= 0);
        CHECK(peas_stats(engine, job, text, sizeof text) > 0);
        double took = now_s() - begun;
        if (took > worst) worst = took;
    }
    return worst;
}

enum state { INSTALL_BEGINS, INSTALL_RECEIVES, VERIFY, CREATE, SHARE, STATES };
static const char *const names[] = { "an install begins", "an install receives", "a verify hashes", "a create hashes", "a share serves" };

static void hang_while(enum state state, const char *pea, const char *peer, int base_threads, int base_fds)
{
    char target[64];
    peas_info info;
    peas_job job = 0;
    snprintf(target, sizeof target, "slow/%d", (int)state);
    peas_engine *engine = engine_with(state == INSTALL_RECEIVES ? "download_limit=2M" : NULL);
    peas_engine *reader = NULL;
    if (state == INSTALL_BEGINS) {
        hang("slow/probe-0");
        job = install_from(engine, pea, target, peer, NULL);
    } else if (state == INSTALL_RECEIVES) {
        job = install_from(engine, pea, target, peer, NULL);
        double end = now_s() + 60;
        do { OK(peas_job_info(engine, job, &info)); CHECK(now_s() < end); usleep(1000); } while (info.bytes_done == 0);
        CHECK(info.complete == 0);
        hang("slow/probe-1");
    } else if (state == VERIFY || state == CREATE) {
        hang(state == VERIFY ? "slow/probe-2" : "slow/probe-3");
        if (state == VERIFY) OK(peas_verify(engine, pea, "slow/whole", NULL, &job, &why));
        else OK(peas_create(engine, "slow/whole", "whole.peas", NULL, &job, &why));
    } else {
        char port[64];
        OK(peas_share(engine, pea, "slow/whole", NULL, &job, &why));
        done(engine, job);
        peer_option(engine, port);
        reader = engine_with(NULL);
        hang("slow/probe-4");
        install_from(reader, pea, "reader", port, NULL);
    }
    /* Long enough for its threads to be inside the disk. */
    CHECK(state == SHARE || peas_wait(engine, job, 500, &why) == PEAS_TIMEOUT);
    if (reader != NULL) CHECK(peas_wait(reader, 1, 500, &why) == PEAS_TIMEOUT);
    double slowest = slowest_answer(engine, job);
    double begun = now_s();
    peas_status status = peas_engine_close(engine, CLOSE_MS);
    double took = now_s() - begun;
    printf("%s: answers within %.2f ms; closed in %.0f ms of %d: %s\n", names[state], slowest * 1e3, took * 1e3, CLOSE_MS,
           peas_status_string(status));
    CHECK(took < 2.0);
    /* Where a thread is inside the disk for sure, the answer says that it was left behind. */
    CHECK(status == PEAS_TIMEOUT || (state == SHARE && status == PEAS_OK));
    if (reader != NULL) { OK(peas_engine_close(reader, HANG_MS)); unlink("reader"); }

    /* The disk is back: what was left behind ends, and the next engine finds a target that it can use. */
    go_on();
    entries_fall_to("/proc/self/task", base_threads);
    entries_fall_to("/proc/self/fd", base_fds);
    engine = engine_with(NULL);
    done(engine, install_from(engine, pea, target, peer, NULL));
    CHECK(same_file(target, "content"));
    OK(peas_engine_close(engine, HANG_MS));
}

int main(int argc, char **argv)
{
    char peer[64];
    CHECK(argc == 2 && chdir(argv[1]) == 0);
    mount_mirror();
    write_file("content", 12u << 20, 5);
    write_file("fast/whole", 12u << 20, 5);
    peas_engine *from = publisher("content", "content.peas", NULL);
    peer_option(from, peer);
    /* Once through, so that what the publisher opens when it is first asked is counted. */
    peas_info info;
    peas_engine *first = engine_with(NULL);
    done(first, install_from(first, "content.peas", "warm", peer, NULL));
    OK(peas_engine_close(first, HANG_MS));
    double end = now_s() + 60;
    do { OK(peas_job_info(from, 2, &info)); CHECK(now_s() < end); usleep(1000); } while (info.peers > 0);
    int threads = entries("/proc/self/task"), fds = entries("/proc/self/fd");
    for (int state = 0; state < STATES; state++) hang_while((enum state)state, "content.peas", peer, threads, fds);
    OK(peas_engine_close(from, HANG_MS));
    puts("all well");
    return 0;
}
