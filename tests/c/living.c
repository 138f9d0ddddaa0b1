/*
 * How engines live in a host's process: signals, dead peers, fork, many threads, and closing - from every state, in time, with
 * nothing left.
 *
 * usage: living FOLDER [ENGINES]          with ENGINES engines made and closed at the end (1,000 if not given)
 *        living FOLDER fetch PEA PEER     a child that installs slowly until it is killed
 *        living FOLDER dns                engines whose names are never answered
 */
#include "host.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static char self[4096];

static void ignore(void *user_data, const peas_event *event) { (void)user_data; (void)event; }

static _Atomic long signalled;
static void on_signal(int signal_number) { (void)signal_number; signalled = (long)gettid(); }

/* Every thread but the host's blocks every signal that can be blocked. */
static void threads_block_signals(void)
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    int seen = 0;
    while ((entry = readdir(dir)) != NULL) {
        char path[512], line[256];
        unsigned long long mask = 0;
        if (entry->d_name[0] == '.' || atol(entry->d_name) == (long)getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        while (file && fgets(line, sizeof line, file)) sscanf(line, "SigBlk: %llx", &mask);
        if (file) fclose(file);
        for (int s = 1; s < 32; s++)
            if (s != SIGKILL && s != SIGSTOP && !(mask >> (s - 1) & 1)) { fprintf(stderr, "thread %s takes signal %d\n", entry->d_name, s); exit(1); }
        seen++;
    }
    closedir(dir);
    CHECK(seen >= 2);
}

static void keeps_the_signals(int under_valgrind)
{
    char peer[64];
    struct sigaction action;
    peas_engine *from = publisher("a", "a.peas", "upload_limit=4M");
    peer_option(from, peer);
    OK(peas_set_callback(from, ignore, NULL));
    sigaction(SIGPIPE, NULL, &action);
    CHECK(action.sa_handler == SIG_DFL);
    signal(SIGUSR1, on_signal);
    kill(getpid(), SIGUSR1);
    while (!signalled) usleep(100);
    CHECK(signalled == (long)getpid());
    if (!under_valgrind) threads_block_signals();

    /* Peers that vanish while they are served: a write into nothing must not end this process. */
    peas_engine_info served;
    for (int i = 0; i < 3; i++) {
        char folder[32];
        snprintf(folder, sizeof folder, "g%d", i);
        pid_t child = fork();
        if (child == 0) { execl(self, self, folder, "fetch", "a.peas", peer, (char *)NULL); _exit(127); }
        double end = now_s() + 60;
        for (;;) {
            char path[64];
            struct stat st;
            snprintf(path, sizeof path, "%s.going", folder);
            if (stat(path, &st) == 0) break;
            CHECK(now_s() < end);
            usleep(1000);
        }
        kill(child, SIGKILL);
        CHECK(waitpid(child, NULL, 0) == child);
    }
    OK(peas_engine_get_info(from, &served));
    CHECK(served.jobs == 1);

    /* A stranger that connects and resets. */
    for (int i = 0; i < 20; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)served.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct linger reset = { 1, 0 };
        CHECK(connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
        CHECK(write(fd, "\x16\x03\x01\x02", 4) == 4);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    { const char *o[] = { "upload_limit=0", NULL }; OK(peas_set(from, 0, o, &why)); }
    peas_engine *to = engine_with(NULL);
    done(to, install_from(to, "a.peas", "h", peer, NULL));
    OK(peas_engine_close(to, HANG_MS));
    OK(peas_engine_close(from, HANG_MS));
}

/* The control: without cover the same write does end a process. */
static void a_bare_write_is_deadly(void)
{
    int pair[2], status;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    close(pair[1]);
    pid_t child = fork();
    if (child == 0) _exit(write(pair[0], "x", 1) == 1 ? 0 : 1);
    close(pair[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}

/* The child of keeps_the_signals: says that bytes arrive, and goes on until it is killed. */
static int fetch(const char *name, const char *pea, const char *peer)
{
    char path[64];
    peas_info info;
    peas_engine *engine = engine_with(NULL);
    peas_job job = install_from(engine, pea, name, peer, "download_limit=256K");
    for (;;) {
        OK(peas_job_info(engine, job, &info));
        if (info.state >= PEAS_STATE_RECEIVING && info.peers > 0) break;
        CHECK(peas_wait(engine, job, 5, &why) == PEAS_TIMEOUT);
    }
    CHECK(peas_wait(engine, job, 200, &why) == PEAS_TIMEOUT);
    snprintf(path, sizeof path, "%s.going", name);
    write_file(path, 1, 1);
    peas_wait(engine, job, -1, &why);
    return 1;
}

static void a_child_has_no_engine(void)
{
    peas_engine *engine = engine_with(NULL);
    int status;
    pid_t child = fork();
    if (child == 0) {
        peas_event event;
        peas_engine *own = NULL;
        int good = peas_poll(engine, &event, 1, -1) == PEAS_FORKED && peas_set(engine, 0, NULL, NULL) == PEAS_FORKED
            && peas_pollable(engine) == -1 && peas_engine_close(engine, 1000) == PEAS_FORKED;
        /* Its own engine is another matter. */
        good = good && peas_engine_new(NULL, &own, NULL) == PEAS_OK && own != engine && peas_engine_close(own, HANG_MS) == PEAS_OK;
        /* By exec: a checker of memory would count what the parent's threads hold as lost in the child. */
        if (good) execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(peas_set(engine, 0, NULL, NULL) == PEAS_OK);
    OK(peas_engine_close(engine, HANG_MS));
}

static peas_engine *shared;
static void *poller(void *count) { peas_event events[4]; int n; while ((n = peas_poll(shared, events, 4, -1)) >= 0) *(_Atomic int *)count += n; return (void *)(long)n; }
static void *waiter(void *job) { return (void *)(long)peas_wait(shared, *(peas_job *)job, -1, NULL); }

static void six_threads_inside(void)
{
    char peer[64], source[16], pea[16], target[16], small[8];
    pthread_t threads[6];
    _Atomic int taken = 0;
    peas_job jobs[8], job;
    peas_info info;
    void *answer;
    peas_engine *from = engine_with(NULL);
    peer_option(from, peer);
    for (int i = 0; i < 8; i++) {
        snprintf(source, sizeof source, "six%d", i);
        snprintf(pea, sizeof pea, "six%d.peas", i);
        write_file(source, 1u << 20, 100 + (unsigned)i);
        OK(peas_create(from, source, pea, NULL, &job, &why));
        done(from, job);
        OK(peas_share(from, pea, source, NULL, &job, &why));
        done(from, job);
    }
    shared = engine_with(NULL);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, poller, &taken) == 0);
    for (int i = 0; i < 8; i++) {
        snprintf(pea, sizeof pea, "six%d.peas", i);
        snprintf(target, sizeof target, "six%d.out", i);
        jobs[i] = install_from(shared, pea, target, peer, i == 7 ? "paused=yes" : NULL);
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[4 + i], NULL, waiter, &jobs[7]) == 0);
    for (int i = 0; i < 7; i++) done(shared, jobs[i]);
    CHECK(peas_wait(shared, jobs[7], 10, &why) == PEAS_TIMEOUT);
    OK(peas_job_info(shared, jobs[0], &info));
    CHECK(info.bytes_done == 1u << 20);
    CHECK(peas_stats(shared, 0, small, sizeof small) > 8 && small[7] == 0);
    /* One content, one job. */
    job = install_from(shared, "six7.peas", "other", peer, NULL);
    CHECK(peas_wait(shared, job, 10000, &why) == PEAS_BUSY);
    double begun = now_s();
    OK(peas_engine_close(shared, HANG_MS));
    for (int i = 0; i < 6; i++) { CHECK(pthread_join(threads[i], &answer) == 0); CHECK((long)answer == PEAS_CLOSED); }
    printf("close with 6 threads inside: %.1f ms, %d events taken\n", (now_s() - begun) * 1e3, (int)taken);
    OK(peas_engine_close(from, HANG_MS));
}

static void *asker(void *unused)
{
    peas_engine_info info;
    peas_status status;
    (void)unused;
    while ((status = peas_engine_get_info(shared, &info)) == PEAS_OK) CHECK(info.port != 0);
    return (void *)(long)status;
}

/* Calls that begin while the engine is closed are answered, whenever they come. */
static void calls_race_with_close(int rounds)
{
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[4];
        void *answer;
        shared = engine_with(NULL);
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, asker, NULL) == 0);
        usleep((unsigned)round * 20);
        OK(peas_engine_close(shared, HANG_MS));
        for (int i = 0; i < 4; i++) { CHECK(pthread_join(threads[i], &answer) == 0); CHECK((long)answer == PEAS_CLOSED); }
    }
}

/* Out of every state, in time. */
static void closes_from_any_state(uint32_t limit_ms)
{
    char peer[64], name[16];
    double worst = 0;
    write_file("big", 64u << 20, 7);
    peas_engine *from = publisher("a", "a.peas", "upload_limit=1M");
    peer_option(from, peer);
    for (int state = 0; state < 10; state++) {
        peas_engine *engine = engine_with(NULL);
        peas_job job = 0;
        snprintf(name, sizeof name, "st%d", state);
        if (state == 1) OK(peas_create(engine, "big", "big.peas", NULL, &job, &why));
        if (state == 2) install_from(engine, "a.peas", name, peer, NULL);
        if (state == 3) { job = install_from(engine, "a.peas", name, peer, NULL); CHECK(peas_wait(engine, job, 500, &why) == PEAS_TIMEOUT); }
        if (state == 4) { job = install_from(engine, "a.peas", name, peer, "paused=yes"); CHECK(peas_wait(engine, job, 100, &why) == PEAS_TIMEOUT); }
        if (state == 5) { OK(peas_share(engine, "a.peas", "a", NULL, &job, &why)); done(engine, job); }
        if (state == 6) install_from(engine, "a.peas", name, "peer=127.0.0.1:9", NULL);
        if (state == 7) { job = install_from(engine, "a.peas", name, peer, NULL); OK(peas_cancel(engine, job)); }
        if (state == 8) OK(peas_verify(engine, "a.peas", "a", NULL, &job, &why));
        if (state == 9) for (int i = 0; i < 20; i++) OK(peas_verify(engine, "a.peas", "a", NULL, &job, &why));
        double begun = now_s();
        peas_status status = peas_engine_close(engine, limit_ms);
        double took = now_s() - begun;
        if (took > worst) worst = took;
        if (status != PEAS_OK) { fprintf(stderr, "state %d: %s after %.0f ms\n", state, peas_status_string(status), took * 1e3); exit(1); }
    }
    printf("close from ten states: %.0f ms at worst\n", worst * 1e3);
    double begun = now_s();
    peas_status at_once = peas_engine_close(from, 0);
    CHECK((at_once == PEAS_OK || at_once == PEAS_TIMEOUT) && now_s() - begun < 1);
}

/* A closed engine has let go of its target, whatever it was doing there: the next one does not find it busy. */
static void targets_are_free_after_close(int rounds)
{
    peas_event event;
    for (int round = 0; round <= rounds; round++) {
        peas_engine *engine = engine_with(NULL);
        peas_job job = install_from(engine, "a.peas", "again", "peer=127.0.0.1:9", NULL);
        if (round < rounds) {
            peas_status waited = peas_wait(engine, job, round % 16, &why);
            if (waited != PEAS_TIMEOUT) { fprintf(stderr, "round %d: %s: %s\n", round, peas_status_string(waited), why.message); exit(1); }
        } else {
            /* The control: one that is not closed holds it. */
            do CHECK(peas_poll(engine, &event, 1, 60000) == 1); while (event.kind != PEAS_EVENT_NOTICE || event.notice != PEAS_NOTICE_STARTED);
            peas_engine *other = engine_with(NULL);
            job = install_from(other, "a.peas", "again", "peer=127.0.0.1:9", NULL);
            CHECK(peas_wait(other, job, 60000, &why) == PEAS_BUSY);
            OK(peas_engine_close(other, HANG_MS));
        }
        OK(peas_engine_close(engine, HANG_MS));
    }
}

/* The host is inside its own callback for ever: close returns all the same. */
static _Atomic int hold = 1, held;
static void never_returns(void *user_data, const peas_event *event) { (void)user_data; (void)event; held = 1; while (hold) usleep(1000); }

static void a_stuck_callback_cannot_hold_the_host(void)
{
    peas_engine *engine = engine_with(NULL);
    OK(peas_set_callback(engine, never_returns, NULL));
    install_from(engine, "missing.peas", "x", "peer=127.0.0.1:9", NULL);
    wait_for(&held);
    double begun = now_s();
    CHECK(peas_engine_close(engine, 300) == PEAS_TIMEOUT);
    double took = now_s() - begun;
    printf("close over a stuck callback: %.0f ms of 300 ms\n", took * 1e3);
    CHECK(took < 5);
    hold = 0;
}

/* Names that nobody answers: this end of the name server's port is never read. */
static int dns(void)
{
    int silent = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in port = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    CHECK(bind(silent, (struct sockaddr *)&port, sizeof port) == 0);
    const char *owner[] = { "owner=nobody-answers.example.org:7000", NULL };
    peas_job job;
    double worst = 0;
    write_file("n", 1u << 20, 3);
    peas_engine *engine = engine_with(NULL);
    OK(peas_create(engine, "n", "n.peas", owner, &job, &why));
    done(engine, job);
    OK(peas_engine_close(engine, HANG_MS));
    /* The control: a plain look-up does hang. */
    pid_t child = fork();
    if (child == 0) {
        struct addrinfo *found = NULL;
        getaddrinfo("nobody-answers.example.org", "7000", NULL, &found);
        _exit(0);
    }
    usleep(700000);
    CHECK(waitpid(child, NULL, WNOHANG) == 0);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    for (int i = 0; i < 3; i++) {
        engine = engine_with(NULL);
        job = install_from(engine, "n.peas", "m", "download_limit=1M", NULL);
        peas_status waited = peas_wait(engine, job, 300 * i, &why);
        if (waited != PEAS_TIMEOUT) { fprintf(stderr, "round %d: %s: %s\n", i, peas_status_string(waited), why.message); return 1; }
        double begun = now_s();
        peas_status status = peas_engine_close(engine, 1000);
        double took = now_s() - begun;
        if (took > worst) worst = took;
        printf("close while a name is not answered: %s after %.0f ms of 1000 ms, %d threads left\n", peas_status_string(status),
               took * 1e3, entries("/proc/self/task") - 3);
    }
    CHECK(worst < 2);
    puts("all well");
    return 0;
}

/* A thread that calls peas for the last time when it is nearly gone: what libraries keep for it is gone before. */
#define ROUNDS 4 /* as often as the C library asks again; in the last one nothing of the thread's is left */
static pthread_key_t last_words;
static _Atomic int said;
static void say(void *engine)
{
    static char text[1 << 16];
    peas_engine_info info;
    peas_event event;
    CHECK(peas_engine_get_info(engine, &info) == PEAS_OK && peas_set(engine, 0, NULL, NULL) == PEAS_OK);
    CHECK(peas_poll(engine, &event, 1, 0) >= 0 && peas_stats(engine, 0, text, sizeof text) > 0);
    CHECK(peas_wait(engine, 999, 0, NULL) == PEAS_NOT_FOUND);
    /* Not under valgrind: whatever notes a destructor as late as this (tokio does) loses the 32 bytes of glibc's note. */
    if (getenv("PEAS_TEST_VALGRIND") == NULL)
        CHECK(peas_wait(engine, install_from(engine, "missing.peas", "x", "peer=127.0.0.1:9", NULL), 10000, NULL) == PEAS_NOT_FOUND);
    if (++said % ROUNDS != 0) CHECK(pthread_setspecific(last_words, engine) == 0);
}
static void *ends(void *engine)
{
    peas_engine_info info;
    CHECK(peas_engine_get_info(engine, &info) == PEAS_OK);
    CHECK(pthread_setspecific(last_words, engine) == 0);
    return NULL;
}

static void threads_may_call_as_they_end(void)
{
    pthread_t thread;
    peas_engine *engine = engine_with(NULL);
    CHECK(pthread_key_create(&last_words, say) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&thread, NULL, ends, engine) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(said == 3 * ROUNDS);
    OK(peas_engine_close(engine, HANG_MS));
}

/* Whoever sleeps on the descriptor of an engine wakes up when it is closed, and learns why. */
static void *sleeper(void *engine)
{
    peas_event event;
    struct pollfd bell = { .fd = (int)peas_pollable(engine), .events = POLLIN };
    CHECK(poll(&bell, 1, 30000) == 1);
    return (void *)(long)peas_poll(engine, &event, 1, 0);
}

/* A host that lets go of its copy of the descriptor long after the engine, as event loops do. */
static void descriptors_may_outlive_the_engine(void)
{
    pthread_t thread;
    void *answer;
    struct epoll_event watched = { .events = EPOLLIN }, got;
    peas_engine *engine = engine_with(NULL);
    int bell = (int)peas_pollable(engine), copy = dup(bell), loop = epoll_create1(EPOLL_CLOEXEC);
    CHECK(bell >= 0 && copy >= 0 && loop >= 0 && epoll_ctl(loop, EPOLL_CTL_ADD, copy, &watched) == 0);
    CHECK(epoll_wait(loop, &got, 1, 0) == 0);
    CHECK(pthread_create(&thread, NULL, sleeper, engine) == 0);
    usleep(20000);
    OK(peas_engine_close(engine, HANG_MS));
    CHECK(pthread_join(thread, &answer) == 0);
    CHECK((long)answer == PEAS_CLOSED);
    /* The copy says so too, for as long as it is kept; it has nothing to do with the next engine. */
    CHECK(epoll_wait(loop, &got, 1, 0) == 1);
    engine = engine_with(NULL);
    struct pollfd other = { .fd = (int)peas_pollable(engine), .events = POLLIN };
    CHECK(other.fd >= 0 && poll(&other, 1, 0) == 0 && epoll_wait(loop, &got, 1, 0) == 1);
    close(copy);
    CHECK(poll(&other, 1, 0) == 0);
    OK(peas_engine_close(engine, HANG_MS));
    close(loop);
}

/* Many at once, closed by several threads in no order. */
#define AT_ONCE 64
static peas_engine *crowd[AT_ONCE];
static _Atomic int next_to_close;
static void *closer(void *unused)
{
    int at;
    (void)unused;
    while ((at = next_to_close++) < AT_ONCE) CHECK(peas_engine_close(crowd[at * 37 % AT_ONCE], HANG_MS) == PEAS_OK);
    return NULL;
}

static void engines_share_a_process(int count)
{
    pthread_t threads[4];
    peas_job job;
    peas_event event;
    for (int i = 0; i < AT_ONCE; i++) {
        crowd[i] = NULL;
        if (i >= count) continue;
        crowd[i] = engine_with("log=info");
        OK(peas_verify(crowd[i], "a.peas", "a", NULL, &job, &why));
        CHECK(job == 1);
    }
    /* Each hears of its own work only. */
    for (int i = 0; i < count; i++) {
        int ended = 0;
        done(crowd[i], 1);
        while (!ended) { CHECK(peas_poll(crowd[i], &event, 1, 10000) == 1); ended = event.kind == PEAS_EVENT_ENDED; CHECK(event.job == 1); }
        CHECK(peas_poll(crowd[i], &event, 1, 0) == 0);
    }
    next_to_close = 0;
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, closer, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void many_engines(int count, int fds, int threads)
{
    peas_job job;
    /* Nothing is left of what was before. The control: an engine that is left open is seen in both counts. */
    entries_fall_to("/proc/self/task", threads);
    entries_fall_to("/proc/self/fd", fds);
    peas_engine *open = engine_with(NULL);
    CHECK(entries("/proc/self/fd") > fds && entries("/proc/self/task") > threads);
    OK(peas_engine_close(open, HANG_MS));
    double begun = now_s();
    for (int i = 0; i < count; i++) {
        peas_engine *engine = engine_with(NULL);
        if (i % 4 == 1) CHECK(peas_pollable(engine) >= 0);
        if (i % 4 == 2) OK(peas_share(engine, "a.peas", "a", NULL, &job, &why));
        if (i % 4 == 3) OK(peas_set_callback(engine, ignore, NULL));
        OK(peas_engine_close(engine, HANG_MS));
    }
    printf("%d engines made and closed: %.2f ms each\n", count, (now_s() - begun) * 1e3 / count);
    entries_fall_to("/proc/self/task", threads);
    entries_fall_to("/proc/self/fd", fds);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2 && readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    if (argc == 5) return fetch(argv[1], argv[3], argv[4]);
    CHECK(chdir(argv[1]) == 0);
    if (argc == 3 && strcmp(argv[2], "dns") == 0) return dns();
    int engines = argc == 3 ? atoi(argv[2]) : 1000, under_valgrind = getenv("PEAS_TEST_VALGRIND") != NULL;
    int fds = entries("/proc/self/fd"), threads = entries("/proc/self/task") + UNDER_TSAN;
    write_file("a", CONTENT_BYTES, 1);
    a_bare_write_is_deadly();
    keeps_the_signals(under_valgrind);
    a_child_has_no_engine();
    six_threads_inside();
    calls_race_with_close(under_valgrind ? 5 : 50);
    /* Not under ThreadSanitizer, which is itself gone from such a thread. */
    if (!UNDER_TSAN) threads_may_call_as_they_end();
    descriptors_may_outlive_the_engine();
    closes_from_any_state(under_valgrind ? HANG_MS : 2000);
    targets_are_free_after_close(under_valgrind ? 16 : 160);
    engines_share_a_process(under_valgrind ? 8 : AT_ONCE);
    many_engines(engines, fds, threads);
    a_stuck_callback_cannot_hold_the_host();
    puts("all well");
    return 0;
}
