// peas.hpp - peas for C++17, header only. peas.h says what each call promises.
//
//   peas::engine engine({"upload_limit=20M"});
//   auto job = engine.install("base.tar.peas", "base.tar", {"trust=file"});
//   if (!engine.wait(job, std::chrono::minutes(5))) ...
//
// Failures are peas::error, with the status and the reason. An engine closes itself; it can be moved, not copied.
#ifndef PEAS_HPP
#define PEAS_HPP

#include <peas.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace peas {

/// Why a call failed, or a job ended.
class error : public std::runtime_error {
public:
    explicit error(const peas_error &why) : std::runtime_error(why.message), status_(why.status), os_code_(why.os_code) {}
    explicit error(std::int32_t status) : std::runtime_error(peas_status_string(status)), status_(status), os_code_(0) {}

    /// A peas_status.
    std::int32_t status() const noexcept { return status_; }
    /// errno or GetLastError(), or 0.
    std::int32_t os_code() const noexcept { return os_code_; }

private:
    std::int32_t status_, os_code_;
};

/// "name=value" strings.
using options = std::vector<std::string>;
using milliseconds = std::chrono::milliseconds;

/// For waits: without end.
constexpr milliseconds forever{-1};

namespace detail {

inline std::vector<const char *> pointers(const options &texts)
{
    std::vector<const char *> list;
    list.reserve(texts.size() + 1);
    for (const auto &text : texts) list.push_back(text.c_str());
    list.push_back(nullptr);
    return list;
}

inline std::int32_t clamp(milliseconds time)
{
    if (time.count() < 0) return -1;
    return static_cast<std::int32_t>(std::min<milliseconds::rep>(time.count(), INT32_MAX));
}

/// Text from a function that works like snprintf, called until it fits.
template <class Write> std::string text(Write write)
{
    std::string out(4096, '\0');
    for (;;) {
        const std::size_t length = write(&out[0], out.size());
        if (length < out.size()) {
            out.resize(length);
            return out;
        }
        out.resize(length + 1024);
    }
}

} // namespace detail

/// What a pea says, as JSON. Needs no engine.
inline std::string describe(const std::string &pea)
{
    peas_error why{};
    auto out = detail::text([&](char *to, std::size_t capacity) { return peas_describe(pea.c_str(), to, capacity, &why); });
    if (why.status != PEAS_OK) throw error(why);
    return out;
}

class engine {
public:
    /// Called with one event at a time. Must not throw: it is called from C.
    using callback = std::function<void(const peas_event &)>;

    explicit engine(const options &settings = {})
    {
        peas_error why;
        const auto list = detail::pointers(settings);
        if (peas_engine_new(list.data(), &handle_, &why) != PEAS_OK) throw error(why);
    }
    engine(engine &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)), callback_(std::move(other.callback_)) {}
    engine &operator=(engine &&other) noexcept
    {
        std::swap(handle_, other.handle_);
        std::swap(callback_, other.callback_);
        return *this;
    }
    engine(const engine &) = delete;
    engine &operator=(const engine &) = delete;
    ~engine() { peas_engine_close(handle_, 3000); }

    /// Ends early, and says whether all was done in time.
    bool close(milliseconds time)
    {
        const auto status = peas_engine_close(std::exchange(handle_, nullptr), static_cast<std::uint32_t>(std::max(0, detail::clamp(time))));
        // A callback that is stuck still uses its function: then that is left behind as well.
        if (status == PEAS_TIMEOUT) callback_.release();
        return status == PEAS_OK;
    }

    peas_job create(const std::string &source, const std::string &pea, const options &more = {}) { return start(peas_create, source, pea, more); }
    peas_job share(const std::string &pea, const std::string &source, const options &more = {}) { return start(peas_share, pea, source, more); }
    peas_job install(const std::string &pea, const std::string &target, const options &more) { return start(peas_install, pea, target, more); }
    peas_job verify(const std::string &pea, const std::string &place, const options &more = {}) { return start(peas_verify, pea, place, more); }

    void cancel(peas_job job) { check(peas_cancel(handle_, job)); }
    /// Changes a job, or with job 0 the engine.
    void set(peas_job job, const options &more)
    {
        peas_error why;
        const auto list = detail::pointers(more);
        if (peas_set(handle_, job, list.data(), &why) != PEAS_OK) throw error(why);
    }
    /// True when complete, false when the time ran out; throws why the job ended otherwise.
    bool wait(peas_job job, milliseconds time = forever)
    {
        peas_error why;
        const auto status = peas_wait(handle_, job, detail::clamp(time), &why);
        if (status != PEAS_OK && status != PEAS_TIMEOUT) throw error(why);
        return status == PEAS_OK;
    }
    peas_info info(peas_job job) const
    {
        peas_info now;
        check(peas_job_info(handle_, job, &now));
        return now;
    }
    peas_engine_info info() const
    {
        peas_engine_info now;
        check(peas_engine_get_info(handle_, &now));
        return now;
    }
    /// Writes the pea with a fresh list of those who hold the content.
    void refresh(peas_job job, const std::string &path)
    {
        peas_error why;
        if (peas_refresh(handle_, job, path.c_str(), &why) != PEAS_OK) throw error(why);
    }

    /// Takes waiting events, waiting for the first.
    std::vector<peas_event> poll(milliseconds time = milliseconds(0), std::size_t most = 64)
    {
        std::vector<peas_event> events(std::min<std::size_t>(most, 4096));
        events.resize(count(peas_poll(handle_, events.data(), static_cast<std::int32_t>(events.size()), detail::clamp(time))));
        return events;
    }
    /// Calls with each waiting event on this thread, waiting for the first; gives how many there were.
    std::size_t dispatch(callback call, milliseconds time = milliseconds(0))
    {
        return count(peas_dispatch(handle_, &engine::relay, &call, detail::clamp(time)));
    }
    /// Has events delivered on a thread that does nothing else; an empty function goes back to poll and dispatch.
    void on_event(callback call)
    {
        auto next = call ? std::make_unique<callback>(std::move(call)) : nullptr;
        check(peas_set_callback(handle_, next ? &engine::relay : nullptr, next.get()));
        callback_ = std::move(next);
    }

    std::string stats(peas_job job = 0) const
    {
        return detail::text([&](char *to, std::size_t capacity) { return peas_stats(handle_, job, to, capacity); });
    }
    std::ptrdiff_t pollable() const noexcept { return peas_pollable(handle_); }
    peas_engine *get() const noexcept { return handle_; }

private:
    static void relay(void *call, const peas_event *one) { (*static_cast<callback *>(call))(*one); }

    template <class Start> peas_job start(Start begin, const std::string &first, const std::string &second, const options &more)
    {
        peas_error why;
        peas_job job = 0;
        const auto list = detail::pointers(more);
        if (begin(handle_, first.c_str(), second.c_str(), list.data(), &job, &why) != PEAS_OK) throw error(why);
        return job;
    }
    static void check(std::int32_t status)
    {
        if (status != PEAS_OK) throw error(status);
    }
    static std::size_t count(std::int32_t answer)
    {
        if (answer < 0) throw error(answer);
        return static_cast<std::size_t>(answer);
    }

    peas_engine *handle_ = nullptr;
    std::unique_ptr<callback> callback_;
};

} // namespace peas

#endif
