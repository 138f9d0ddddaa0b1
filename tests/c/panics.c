/*
 * A panic at every export is an answer. Needs a library built with the feature test-hooks, which panics where it is told: in the
 * exported function before its body ("entry"), or behind the barrier that fails the engine ("inside").
 *
 * usage: panics FOLDER EXPORT...      with every symbol that the library exports
 */
#include "host.h"

static peas_engine *engine;
static char text[4096];

static void quiet(void *user_data, const peas_event *event) { (void)user_data; (void)event; }
static void woken(void *user_data) { (void)user_data; }

/* Each calls one export and says whether the answer was that of a panic. `why` has the reason where the export gives one. */
static int with_reason(peas_status status) { return status == PEAS_INTERNAL; }
static int version(void) { return peas_version() == 0; }
static int version_string(void) { return peas_version_string() == NULL; }
static int status_string(void) { return peas_status_string(0) == NULL; }
static int engine_new(void)
{
    peas_engine *made = NULL;
    peas_status status = peas_engine_new(NULL, &made, &why);
    if (made != NULL) peas_engine_close(made, HANG_MS);
    return with_reason(status) && made == NULL;
}
static int engine_close(void) { return peas_engine_close(engine, HANG_MS) == PEAS_INTERNAL; }
static int get_info(void) { peas_engine_info info; return peas_engine_get_info(engine, &info) == PEAS_INTERNAL; }
static int set(void) { return with_reason(peas_set(engine, 0, NULL, &why)); }
static int create(void) { return with_reason(peas_create(engine, "a", "b", NULL, NULL, &why)); }
static int share(void) { return with_reason(peas_share(engine, "a", "b", NULL, NULL, &why)); }
static int install(void) { peas_job job = 7; return with_reason(peas_install(engine, "a", "b", NULL, &job, &why)); }
static int verify(void) { return with_reason(peas_verify(engine, "a", "b", NULL, NULL, &why)); }
static int cancel(void) { return peas_cancel(engine, 1) == PEAS_INTERNAL; }
static int wait_(void) { return with_reason(peas_wait(engine, 1, 0, &why)); }
static int job_info(void) { peas_info info; return peas_job_info(engine, 1, &info) == PEAS_INTERNAL; }
static int refresh(void) { return with_reason(peas_refresh(engine, 1, "x", &why)); }
static int describe(void) { return peas_describe("a", text, sizeof text, &why) == 0; }
static int stats(void) { return peas_stats(engine, 0, text, sizeof text) == 0; }
static int poll_(void) { peas_event event; return peas_poll(engine, &event, 1, -1) == PEAS_INTERNAL; }
static int dispatch(void) { return peas_dispatch(engine, quiet, NULL, -1) == PEAS_INTERNAL; }
static int set_callback(void) { return peas_set_callback(engine, quiet, NULL) == PEAS_INTERNAL; }
static int pollable(void) { return peas_pollable(engine) == -1; }
static int set_wake(void) { return peas_set_wake(engine, woken, NULL) == PEAS_INTERNAL; }

static const struct {
    const char *name;
    int (*panics)(void);
    int inside; /* 0: nothing stands behind the inner barrier; 1: no engine to fail; 2: fails its engine */
} exports[] = {
    { "peas_version", version, 0 },
    { "peas_version_string", version_string, 0 },
    { "peas_status_string", status_string, 0 },
    { "peas_engine_new", engine_new, 1 },
    { "peas_engine_close", engine_close, 1 },
    { "peas_engine_get_info", get_info, 2 },
    { "peas_set", set, 2 },
    { "peas_create", create, 2 },
    { "peas_share", share, 2 },
    { "peas_install", install, 2 },
    { "peas_verify", verify, 2 },
    { "peas_cancel", cancel, 2 },
    { "peas_wait", wait_, 2 },
    { "peas_job_info", job_info, 2 },
    { "peas_refresh", refresh, 2 },
    { "peas_describe", describe, 1 },
    { "peas_stats", stats, 2 },
    { "peas_poll", poll_, 2 },
    { "peas_dispatch", dispatch, 2 },
    { "peas_set_callback", set_callback, 2 },
    { "peas_pollable", pollable, 2 },
    { "peas_set_wake", set_wake, 2 },
};
#define EXPORTS (sizeof exports / sizeof *exports)

static void arm(const char *place, const char *name)
{
    char option[128];
    const char *options[] = { option, NULL };
    snprintf(option, sizeof option, "test.panic=%s:%s", place, name);
    OK(peas_set(engine, 0, options, &why));
}

static void panic_at(const char *place, size_t at)
{
    const char *name = exports[at].name;
    int closes = strcmp(name, "peas_engine_close") == 0;
    engine = engine_with(NULL);
    arm(place, name);
    memset(&why, 0, sizeof why);
    if (!exports[at].panics()) { fprintf(stderr, "%s panicked at its %s, and answered something else\n", name, place); exit(1); }
    if (why.status != 0) CHECK(strcmp(place, "inside") == 0 && strstr(why.message, "asked to") != NULL);
    if (strcmp(place, "inside") == 0 && exports[at].inside == 2) {
        /* Never half-alive. */
        peas_event event;
        CHECK(peas_set(engine, 0, NULL, &why) == PEAS_INTERNAL && strstr(why.message, "asked to") != NULL);
        CHECK(peas_poll(engine, &event, 1, -1) == PEAS_INTERNAL && peas_cancel(engine, 1) == PEAS_INTERNAL);
    } else if (!closes) {
        OK(peas_set(engine, 0, NULL, &why));
    }
    /* A panic before the body of close leaves the engine to be closed; one inside has taken it. */
    CHECK(peas_engine_close(engine, HANG_MS) == (closes && strcmp(place, "inside") == 0 ? PEAS_CLOSED : PEAS_OK));
}

/* In the task of a job: it ends the job, and the engine goes on. */
static void a_panic_in_a_job_ends_the_job(void)
{
    peas_job job;
    peas_event event;
    const char *options[] = { "trust=file", "test.panic=open", NULL };
    engine = engine_with(NULL);
    OK(peas_install(engine, "x.peas", "x", options, &job, &why));
    CHECK(peas_wait(engine, job, 60000, &why) == PEAS_INTERNAL && strstr(why.message, "asked to"));
    OK(peas_set(engine, 0, NULL, &why));
    while (peas_poll(engine, &event, 1, 10000) == 1 && event.kind != PEAS_EVENT_ENDED) {}
    CHECK(event.kind == PEAS_EVENT_ENDED && event.job == job && event.status == PEAS_INTERNAL);
    OK(peas_engine_close(engine, HANG_MS));
}

/* What was printed while standard error was a file: nothing, unless a check failed. */
static int terminal = -1, printed = -1;
static void show_what_was_printed(void)
{
    static char all[65536];
    ssize_t bytes = printed >= 0 ? pread(printed, all, sizeof all, 0) : 0;
    if (bytes > 0 && write(terminal, all, (size_t)bytes) != bytes) _exit(1);
}

int main(int argc, char **argv)
{
    struct stat errors;
    CHECK(argc > 2 && chdir(argv[1]) == 0);
    for (int i = 2; i < argc; i++) {
        size_t at = 0;
        while (at < EXPORTS && strcmp(exports[at].name, argv[i]) != 0) at++;
        if (at == EXPORTS) { fprintf(stderr, "%s is exported, and no panic in it is tried here\n", argv[i]); return 1; }
    }
    CHECK((size_t)argc - 2 == EXPORTS);

    /* The control: without a panic the answers are others. Waits would not end. */
    engine = engine_with(NULL);
    for (size_t at = 0; at < EXPORTS; at++)
        if (strcmp(exports[at].name, "peas_poll") != 0 && strcmp(exports[at].name, "peas_dispatch") != 0
            && strcmp(exports[at].name, "peas_describe") != 0 && strcmp(exports[at].name, "peas_engine_close") != 0)
            CHECK(!exports[at].panics());
    OK(peas_set_callback(engine, NULL, NULL));
    OK(peas_engine_close(engine, HANG_MS));

    /* The host's standard error is not ours: not a word of these panics is printed there. */
    terminal = dup(2);
    printed = open("stderr", O_RDWR | O_CREAT | O_TRUNC, 0600);
    atexit(show_what_was_printed);
    CHECK(terminal >= 0 && printed >= 0 && dup2(printed, 2) == 2);
    for (size_t at = 0; at < EXPORTS; at++) panic_at("entry", at);
    for (size_t at = 0; at < EXPORTS; at++)
        if (exports[at].inside) panic_at("inside", at);
    CHECK(dup2(terminal, 2) == 2);
    CHECK(fstat(printed, &errors) == 0 && errors.st_size == 0);
    a_panic_in_a_job_ends_the_job();
    puts("all well");
    return 0;
}
