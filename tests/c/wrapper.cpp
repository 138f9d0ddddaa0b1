// peas.hpp at work: two engines, one content, events by each way.
#include <peas.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                               \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

static std::string read(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

static int status_of(const std::function<void()> &call)
{
    try {
        call();
    } catch (const peas::error &why) {
        CHECK(why.what()[0] != 0);
        return why.status();
    }
    return PEAS_OK;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const std::string folder = std::string(argv[1]) + "/", source = folder + "cpp.bin", pea = folder + "cpp.peas";
    std::string content;
    for (int i = 0; i < 3000000; i++) content += static_cast<char>(i * i >> 7);
    std::ofstream(source, std::ios::binary) << content;

    CHECK(status_of([] { peas::engine bad({"threads=x"}); }) == PEAS_INVALID);
    CHECK(status_of([&] { peas::describe(folder + "missing"); }) == PEAS_NOT_FOUND);

    const peas::options settings{"listen=127.0.0.1:0", "scope=any"};
    peas::engine from(settings), other(settings);
    CHECK(from.wait(from.create(source, pea, {"name=c++"})));
    CHECK(peas::describe(pea).find("\"name\":\"c++\"") != std::string::npos);
    const auto shared = from.share(pea, source);
    CHECK(from.wait(shared));

    peas::engine to = std::move(other);
    CHECK(status_of([&] { to.install(pea, folder + "x", {}); }) == PEAS_INVALID);
    const peas::options here{"trust=file", "peer=127.0.0.1:" + std::to_string(from.info().port)};
    std::atomic<int> completed{0}, ended{0};
    const auto count = [&](const peas_event &one) {
        completed += one.kind == PEAS_EVENT_COMPLETE;
        ended += one.kind == PEAS_EVENT_ENDED;
    };

    to.on_event(count);
    const auto job = to.install(pea, folder + "one", here);
    CHECK(to.wait(job, std::chrono::minutes(1)));
    while (!ended) CHECK(to.info(job).verb == PEAS_VERB_INSTALL);
    to.on_event(nullptr);
    CHECK(completed == 1 && read(folder + "one") == content);

    to.install(pea, folder + "two", here);
    while (ended < 2) CHECK(to.dispatch(count, std::chrono::minutes(1)) > 0);
    CHECK(completed == 2 && read(folder + "two") == content);

    to.install(pea, folder + "three", here);
    for (bool over = false; !over;)
        for (const auto &one : to.poll(std::chrono::minutes(1))) over = over || one.kind == PEAS_EVENT_ENDED;
    CHECK(read(folder + "three") == content);

    from.refresh(shared, folder + "fresh.peas");
    CHECK(peas::describe(folder + "fresh.peas").size() > 100 && from.stats().size() > 100 && from.stats(shared).size() > 100);
    to.set(0, {"upload_limit=1M"});
    CHECK(to.info().upload_limit == 1048576);
    CHECK(status_of([&] { to.cancel(999); }) == PEAS_NOT_FOUND);
    CHECK(to.close(std::chrono::seconds(2)));
    CHECK(status_of([&] { to.info(); }) == PEAS_INVALID);
    std::puts("all well");
    return 0;
}
