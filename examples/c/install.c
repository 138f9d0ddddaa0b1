/* The smallest useful host: makes TARGET what PEA says, and shows how far it is.
 * cc install.c $(pkg-config --cflags --libs peas) -o install && ./install data.peas data.tar */
#include <peas.h>
#include <stdio.h>

static void show(void *done, const peas_event *event)
{
    if (event->kind == PEAS_EVENT_PROGRESS && event->bytes_total > 0)
        fprintf(stderr, "\r%3.0f %%", 100.0 * (double)event->bytes_done / (double)event->bytes_total);
    if (event->kind == PEAS_EVENT_NOTICE) fprintf(stderr, "\n%s\n", event->message);
    if (event->kind == PEAS_EVENT_ENDED) *(int *)done = 1;
}

int main(int argc, char **argv)
{
    const char *options[] = { "trust=file", argc > 3 ? argv[3] : NULL, NULL };
    peas_engine *engine = NULL;
    peas_error error;
    peas_job job;
    int done = 0;

    if (argc < 3) return fprintf(stderr, "usage: install PEA TARGET [OPTION=VALUE]\n"), 2;
    if (peas_engine_new(NULL, &engine, &error) == PEAS_OK
        && peas_install(engine, argv[1], argv[2], options, &job, &error) == PEAS_OK) {
        while (!done && peas_dispatch(engine, show, &done, -1) > 0) {}
        peas_wait(engine, job, 0, &error); /* why it ended */
    }
    peas_engine_close(engine, 3000);
    fprintf(stderr, "\n%s %s\n", peas_status_string(error.status), error.message);
    return error.status == PEAS_OK ? 0 : 1;
}
