/*
 * A content from an https server alone. Its authority is one that no browser knows: without `web_ca` not a byte comes, with it all.
 * Prints what peas_stats and peas_describe say of it.
 *
 * usage: web FOLDER URL FILE...      URL: where the folder is served; FILE: the server's authority, in each form that is read
 */
#include "host.h"

static const char *option(char text[4200], const char *name, const char *value)
{
    CHECK(snprintf(text, 4200, "%s=%s", name, value) < 4200);
    return text;
}

int main(int argc, char **argv)
{
    static char text[1 << 16];
    char url[4200], ca[4200];
    peas_engine *engine = engine_with(NULL);
    peas_job job = 0;
    peas_info info;
    CHECK(argc >= 4 && chdir(argv[1]) == 0);
    write_file("content.bin", CONTENT_BYTES, 1);
    const char *web[] = { option(url, "web", argv[2]), NULL };
    OK(peas_create(engine, "content.bin", "content.peas", web, &job, &why));
    done(engine, job);

    /* The control: this server is certified by nobody that this engine knows, and it says so. */
    job = install_from(engine, "content.peas", "never", NULL, NULL);
    double end = now_s() + 60;
    do { CHECK(now_s() < end && peas_stats(engine, job, text, sizeof text) > 0); usleep(1000); } while (strstr(text, "certificate") == NULL);
    CHECK(peas_stats(engine, 0, text, sizeof text) > 0);
    printf("stats %s\n", text);
    OK(peas_job_info(engine, job, &info));
    CHECK(info.bytes_done == 0 && info.bytes_from_web == 0 && info.complete == 0);
    OK(peas_engine_close(engine, HANG_MS));

    for (int i = 3; i < argc; i++) {
        char target[16];
        snprintf(target, sizeof target, "copy%d", i);
        engine = engine_with(option(ca, "web_ca", argv[i]));
        job = install_from(engine, "content.peas", target, NULL, NULL);
        done(engine, job);
        OK(peas_job_info(engine, job, &info));
        CHECK(info.bytes_from_web >= CONTENT_BYTES && info.bytes_from_origin + info.bytes_from_peers == 0);
        CHECK(same_file("content.bin", target));
        OK(peas_engine_close(engine, HANG_MS));
    }
    CHECK(peas_describe("content.peas", text, sizeof text, &why) > 0);
    printf("pea %s\n", text);
    puts("all well");
    return 0;
}
