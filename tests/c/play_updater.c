/*
 * Plays examples/c/game_updater at a pseudo-terminal, as a person would, against a swarm that runs in this program: an origin
 * and a peer that holds the content. Two releases of a game of thousands of files, signed by the studio.
 *
 * usage: play_updater FOLDER UPDATER INSTALLER
 */
#include "host.h"

#include <pty.h>
#include <stdarg.h>

#define STUDIO_SECRET "sign=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
#define OTHER_SECRET "sign=6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"
#define FOLDERS 30
#define FILES 100
#define FILE_BYTES 6000

static char *updater;

/* 3,000 small files and a big one; every third small one differs between releases. */
static void make_game(const char *folder, unsigned release)
{
    char path[256];
    CHECK(mkdir(folder, 0777) == 0);
    for (unsigned d = 0; d < FOLDERS; d++) {
        snprintf(path, sizeof path, "%s/level%02u", folder, d);
        CHECK(mkdir(path, 0777) == 0);
        for (unsigned f = 0; f < FILES; f++) {
            unsigned n = d * FILES + f;
            snprintf(path, sizeof path, "%s/level%02u/%03u.dat", folder, d, f);
            write_file(path, FILE_BYTES + n % 500, n % 3 == 0 ? n + 100000 * release : n + 1);
        }
    }
    snprintf(path, sizeof path, "%s/world.pak", folder);
    write_file(path, 24u << 20, 99 + release);
}

static int same_game(const char *a, const char *b)
{
    char pa[256], pb[256];
    for (unsigned d = 0; d < FOLDERS; d++)
        for (unsigned f = 0; f < FILES; f++) {
            snprintf(pa, sizeof pa, "%s/level%02u/%03u.dat", a, d, f);
            snprintf(pb, sizeof pb, "%s/level%02u/%03u.dat", b, d, f);
            if (!same_file(pa, pb)) return 0;
        }
    snprintf(pa, sizeof pa, "%s/world.pak", a);
    snprintf(pb, sizeof pb, "%s/world.pak", b);
    return same_file(pa, pb);
}

static void create(peas_engine *engine, const char *source, const char *pea, const char *release, const char *sign)
{
    const char *options[] = { "name=meadow", "channel=stable", release, sign, NULL };
    peas_job job;
    OK(peas_create(engine, source, pea, options, &job, &why));
    done(engine, job);
}

/* ------------------------------------------------------------------ the person */

static char screen[1 << 20];
static size_t seen, read_to;
static int terminal = -1;
static pid_t player;

static void start(const char *first, ...)
{
    const char *arguments[32] = { updater, "-e", "listen=127.0.0.1:0", "-e", "scope=any", first };
    int count = 6;
    va_list more;
    va_start(more, first);
    while ((arguments[count] = va_arg(more, const char *)) != NULL) CHECK(++count < 31);
    va_end(more);
    struct winsize size = { .ws_row = 24, .ws_col = 160 };
    player = forkpty(&terminal, NULL, NULL, &size);
    CHECK(player >= 0);
    if (player == 0) {
        execv(updater, (char *const *)(void *)arguments);
        _exit(127);
    }
    seen = read_to = 0;
    screen[0] = 0;
}

/* Reads what is on the screen; 0 when the program is gone. */
static int look(int ms)
{
    struct pollfd p = { .fd = terminal, .events = POLLIN };
    if (poll(&p, 1, ms) <= 0) return 1;
    ssize_t n = read(terminal, screen + seen, sizeof screen - 1 - seen);
    if (n <= 0) return 0;
    seen += (size_t)n;
    screen[seen] = 0;
    CHECK(seen < sizeof screen - 1);
    return 1;
}

/* Until this text comes after what was expected last. */
static void expect(const char *text)
{
    double end = now_s() + 90;
    for (;;) {
        char *found = strstr(screen + read_to, text);
        if (found != NULL) {
            read_to = (size_t)(found - screen) + strlen(text);
            return;
        }
        int there = look(100);
        if ((!there && strstr(screen + read_to, text) == NULL) || now_s() > end) {
            fprintf(stderr, "\"%s\" did not come; the screen:\n%.*s\n", text, 4000, seen > 4000 ? screen + seen - 4000 : screen);
            exit(1);
        }
    }
}

static void press(char k) { CHECK(write(terminal, &k, 1) == 1); }

/* Never above 1 ms of a frame in peas: in CPU time in no frame at all; by the clock, which also runs while other programs have the
 * machine, in one of a hundred at most. */
static int stays_out_of_the_way(const char *line)
{
    unsigned long long frames, slow;
    double worst_ms, cpu_ms;
    CHECK(sscanf(line, "%llu frames; inside peas at most %lf ms of a frame (CPU %lf ms), %llu frames above 1 ms", &frames, &worst_ms, &cpu_ms,
                 &slow) == 4);
    return cpu_ms < 1 && cpu_ms <= worst_ms && slow * 100 <= frames + 99;
}

static int finish(void)
{
    int status;
    while (look(1000)) CHECK(seen < sizeof screen - 1);
    CHECK(waitpid(player, &status, 0) == player && WIFEXITED(status));
    close(terminal);
    const char *last = strstr(screen, " frames; inside peas");
    CHECK(last != NULL);
    while (last > screen && last[-1] != '\n') last--;
    printf("%.*s\n", (int)strcspn(last, "\r\n"), last);
    CHECK(stays_out_of_the_way(last));
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    char origin_at[64], peer_at[64];
    peas_job job;
    peas_info info;
    CHECK(argc == 4 && chdir(argv[1]) == 0);
    updater = argv[2];
    /* The controls. */
    CHECK(stays_out_of_the_way("600 frames; inside peas at most 9.000 ms of a frame (CPU 0.050 ms), 6 frames above 1 ms"));
    CHECK(!stays_out_of_the_way("600 frames; inside peas at most 9.000 ms of a frame (CPU 0.050 ms), 8 frames above 1 ms"));
    CHECK(!stays_out_of_the_way("600 frames; inside peas at most 1.200 ms of a frame (CPU 1.100 ms), 1 frames above 1 ms"));

    make_game("v1", 1);
    make_game("v2", 2);
    peas_engine *origin = engine_with(NULL), *peer = engine_with(NULL);
    create(origin, "v1", "v1.peas", "release=1", STUDIO_SECRET);
    create(origin, "v2", "v2.peas", "release=2", STUDIO_SECRET);
    create(origin, "v2", "forged.peas", "release=3", OTHER_SECRET);
    const char *sources[] = { "v1", "v2" }, *peas[] = { "v1.peas", "v2.peas" };
    const char *held[] = { "held1", "held2" };
    for (int i = 0; i < 2; i++) {
        OK(peas_share(origin, peas[i], sources[i], NULL, &job, &why));
        done(origin, job);
    }
    peer_option(origin, origin_at);
    peer_option(peer, peer_at);
    for (int i = 0; i < 2; i++) {
        job = install_from(peer, peas[i], held[i], origin_at, "share=forever");
        done(peer, job);
    }

    /* A first install, with a pause, a game that starts and ends, and a person who leaves in the middle. */
    const char *slow[] = { "upload_limit=1500K", NULL };
    OK(peas_set(origin, 0, slow, &why));
    OK(peas_set(peer, 0, slow, &why));
    start("-j", origin_at, "-j", peer_at, "v1.peas", "game", NULL);
    expect("installed nothing yet");
    expect("offered   release 1: 3001 files");
    expect("updating");
    expect("from peers");
    press('p');
    expect("paused");
    press('p');
    expect("updating");
    press('g');
    expect("(game runs)");
    press('g');
    expect("s left\033[K");
    press('q');
    double pressed = now_s();
    expect("quit; the next start goes on");
    printf("q to gone: %.0f ms\n", (now_s() - pressed) * 1e3);
    CHECK(finish() == 0);
    CHECK(access("game.installed.peas", F_OK) != 0);

    /* It goes on where it was. */
    const char *fast[] = { "upload_limit=0", NULL };
    OK(peas_set(origin, 0, fast, &why));
    OK(peas_set(peer, 0, fast, &why));
    start("-j", origin_at, "-j", peer_at, "v1.peas", "game", NULL);
    expect("bytes are here already");
    expect("ready to play");
    CHECK(finish() == 0);
    CHECK(strstr(screen, "started; 0 bytes") == NULL && same_game("game", "v1"));

    /* The update keeps what is the same. */
    start("-j", origin_at, "-j", peer_at, "v2.peas", "game", NULL);
    expect("installed release 1: 3001 files");
    expect("offered   release 2");
    expect("ready to play");
    CHECK(finish() == 0);
    CHECK(same_game("game", "v2"));

    /* An old release is refused, however well it is signed; one signed by somebody else too. */
    start("-j", origin_at, "v1.peas", "game", NULL);
    expect("installed release 2");
    expect("refused: ");
    CHECK(finish() == 3 && same_game("game", "v2"));
    start("-j", origin_at, "forged.peas", "game", NULL);
    expect("PEAS_UNTRUSTED");
    CHECK(finish() == 3 && same_game("game", "v2"));

    /* The small example. */
    char command[12000];
    snprintf(command, sizeof command, "%s v1.peas by_hand %s 2>&1", argv[3], origin_at);
    CHECK(system(command) == 0 && same_game("by_hand", "v1"));

    OK(peas_job_info(peer, job, &info));
    CHECK(info.bytes_sent > 0);
    printf("the peer gave %.1f MiB\n", (double)info.bytes_sent / 1048576);
    OK(peas_engine_close(origin, HANG_MS));
    OK(peas_engine_close(peer, HANG_MS));
    puts("all well");
    return 0;
}
