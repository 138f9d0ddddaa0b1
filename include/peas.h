/**
 * @file
 * peas - peer-assisted distribution of large files, to embed in a program.
 *
 * @verbatim
 * Written by cbindgen from peas-ffi/src; do not edit.
 *
 *   engine   one opaque handle that owns threads, sockets and jobs; any number per process
 *   pea      a small file that describes a big one, or a folder: pieces, hashes, owners, signatures
 *   job      work on one pea, named by a 64-bit number that is never reused; there is no job to free
 *   event    a plain value, copied into your memory; there is no event to free
 *
 * Threads  Every function may be called from any thread at any time, on the same engine too. peas calls
 *          your code in three places only: peas_dispatch, on the thread that calls it; the event
 *          function (peas_set_callback), on one thread of its own; and the wake function.
 * Blocking Only these block: peas_engine_new and peas_engine_close; peas_wait, peas_poll and
 *          peas_dispatch when given time; peas_describe and peas_refresh, which read and write a
 *          small file; peas_set_callback and peas_set_wake while the former function runs.
 * Memory   What you pass in is copied before the call returns. What you get back is copied into
 *          memory you own. The engine is the only thing to free, with peas_engine_close. Passing
 *          NULL where it is not allowed, or an engine that was closed, is an error, not a crash.
 * Options  A NULL-terminated array of "name=value" strings, or NULL. Unknown names are an error.
 *          The names are in peas-ffi/docs/OPTIONS.md.
 * Text     UTF-8, NUL-terminated. Paths too.
 * Times    Milliseconds. For waits, 0 does not wait and -1 waits without end.
 * Fork     A child of fork() does not have the engine: every call returns PEAS_FORKED, close too.
 *          exec() and posix_spawn() are safe; every descriptor is close-on-exec.
 * Process  peas installs no signal handler, no atexit or atfork function and no logger, changes no
 *          limits, and writes to no standard stream unless an engine thread meets a bug in peas. Its
 *          threads block every signal.
 * ABI      Values and struct sizes never change within libpeas.so.0; functions, constants and uses
 *          of reserved bytes (always zero until then) may be added.
 * @endverbatim
 */


#ifndef PEAS_H
#define PEAS_H

#include <stddef.h>
#include <stdint.h>
/** In front of each function. Define PEAS_STATIC to link the static library. */
#if defined(PEAS_STATIC)
#define PEAS_API
#elif defined(_WIN32)
#define PEAS_API __declspec(dllimport)
#else
#define PEAS_API __attribute__((visibility("default")))
#endif

/**
 * The version of this header: 0x00MMmmpp. Compare with peas_version().
 */
#define PEAS_VERSION 256

/**
 * Why a call failed, or why a job ended. Zero is success, failures are negative.
 * Values may be added: treat one you do not know as PEAS_INTERNAL.
 */
enum peas_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Success.
   */
  PEAS_OK = 0,
  /**
   * An argument or an option is wrong. Nothing was done.
   */
  PEAS_INVALID = -1,
  /**
   * There is no such job, file or folder.
   */
  PEAS_NOT_FOUND = -2,
  /**
   * The pea is damaged, or what lies on disk is not what it says and may not be replaced.
   */
  PEAS_CORRUPT = -3,
  /**
   * The file system or the network of this machine failed; os_code says how.
   */
  PEAS_IO = -4,
  /**
   * The disk is full.
   */
  PEAS_FULL = -5,
  /**
   * Another job or another process is at work on the same target, or the engine has all it can hold.
   */
  PEAS_BUSY = -6,
  /**
   * Nobody who can be reached has the pieces that are missing.
   */
  PEAS_UNREACHABLE = -7,
  /**
   * The pea is not signed by enough of the keys that were given, or is not the one that was pinned.
   */
  PEAS_UNTRUSTED = -8,
  /**
   * The job was cancelled.
   */
  PEAS_CANCELLED = -9,
  /**
   * The time given to the call ran out. Nothing was changed.
   */
  PEAS_TIMEOUT = -10,
  /**
   * The engine is closed or closing.
   */
  PEAS_CLOSED = -11,
  /**
   * The engine belongs to the parent of this process.
   */
  PEAS_FORKED = -12,
  /**
   * A bug in peas. The engine does nothing more; close it.
   */
  PEAS_INTERNAL = -13,
  /**
   * The pea is older than one that was accepted before (option state_dir).
   */
  PEAS_ROLLBACK = -14,
  /**
   * The pea's time is over.
   */
  PEAS_EXPIRED = -15,
  /**
   * The pea is of another channel than the one that was asked for.
   */
  PEAS_WRONG_CHANNEL = -16,
  /**
   * The same release was accepted before with other content (option state_dir).
   */
  PEAS_EQUIVOCATION = -17,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_status peas_status;
#else
typedef int32_t peas_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event says.
 */
enum peas_event_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The job moved on. At most one of these waits per job, and it has the latest numbers.
   */
  PEAS_EVENT_PROGRESS = 1,
  /**
   * The job did its work. An install: whole, verified, on stable storage, under its final name. A share: others are
   * served from now on. A create: the pea is written. A verify: all is as the pea says.
   */
  PEAS_EVENT_COMPLETE = 2,
  /**
   * The job is over; status says why, PEAS_OK if it was complete. The last event of a job; each job has exactly one.
   */
  PEAS_EVENT_ENDED = 3,
  /**
   * Something that a person may want to know; `notice` says what, for programs.
   */
  PEAS_EVENT_NOTICE = 4,
  /**
   * A line of the log, if the option log asks for them.
   */
  PEAS_EVENT_LOG = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_event_type peas_event_type;
#else
typedef uint32_t peas_event_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a notice is about.
 */
enum peas_notice_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * What was on disk is known; `value`: bytes that need not be received.
   */
  PEAS_NOTICE_STARTED = 1,
  /**
   * The origin cannot be reached any more; other peers go on.
   */
  PEAS_NOTICE_ORIGIN_LOST = 2,
  /**
   * The origin is back.
   */
  PEAS_NOTICE_ORIGIN_BACK = 3,
  /**
   * A peer sent what is not the content, and was banned.
   */
  PEAS_NOTICE_PEER_BANNED = 4,
  /**
   * `value` missing pieces have no holder within reach; 0: all have one again.
   */
  PEAS_NOTICE_UNAVAILABLE = 5,
  /**
   * The job stands still; `value` is a peas_pause.
   */
  PEAS_NOTICE_PAUSED = 6,
  /**
   * The job goes on.
   */
  PEAS_NOTICE_RESUMED = 7,
  /**
   * Piece `value` on this disk was damaged; it is received again.
   */
  PEAS_NOTICE_DAMAGED = 8,
  /**
   * A verify found this file missing or wrong; the message is its path.
   */
  PEAS_NOTICE_BAD_FILE = 9,
  /**
   * `value` older notices and log lines were dropped, since nobody took them.
   */
  PEAS_NOTICE_DROPPED = 10,
  /**
   * A web server that the pea names gave nothing; the message is its address, and why.
   */
  PEAS_NOTICE_WEB_FAILED = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_notice_type peas_notice_type;
#else
typedef uint32_t peas_notice_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a job is for.
 */
enum peas_verb
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * peas_create.
   */
  PEAS_VERB_CREATE = 1,
  /**
   * peas_share.
   */
  PEAS_VERB_SHARE = 2,
  /**
   * peas_install.
   */
  PEAS_VERB_INSTALL = 3,
  /**
   * peas_verify.
   */
  PEAS_VERB_VERIFY = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_verb peas_verb;
#else
typedef uint32_t peas_verb;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a job is doing.
 */
enum peas_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Reading and hashing what is on disk.
   */
  PEAS_STATE_CHECKING = 1,
  /**
   * Receiving what is missing, and sharing what is there.
   */
  PEAS_STATE_RECEIVING = 2,
  /**
   * Sharing the whole content.
   */
  PEAS_STATE_SHARING = 3,
  /**
   * Over.
   */
  PEAS_STATE_ENDED = 4,
  /**
   * All is received; it is being put under its final names.
   */
  PEAS_STATE_PUBLISHING = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_state peas_state;
#else
typedef uint32_t peas_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a job stands still.
 */
enum peas_pause
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It does not stand still.
   */
  PEAS_PAUSE_NONE = 0,
  /**
   * The host said so (option paused).
   */
  PEAS_PAUSE_HOST = 1,
  /**
   * The disk is full. The job goes on by itself when there is room.
   */
  PEAS_PAUSE_DISK_FULL = 2,
  /**
   * The disk refuses. The job goes on by itself when it takes writes again.
   */
  PEAS_PAUSE_DISK_ERROR = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_pause peas_pause;
#else
typedef uint32_t peas_pause;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How loud a notice or a log line is. The option log takes the lower-case names.
 */
enum peas_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Something failed.
   */
  PEAS_LEVEL_ERROR = 1,
  /**
   * Something is wrong and was dealt with.
   */
  PEAS_LEVEL_WARNING = 2,
  /**
   * Good to know.
   */
  PEAS_LEVEL_INFO = 3,
  /**
   * For those who look for a fault.
   */
  PEAS_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum peas_level peas_level;
#else
typedef uint32_t peas_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An engine: threads, sockets and jobs. Opaque: a value that peas looks up, so a call on an engine that was closed is an
 * error and not a crash.
 */
typedef struct peas_engine peas_engine;

/**
 * Why a call failed, or a job ended, for people and logs. 256 bytes.
 */
typedef struct peas_error {
  /**
   * A peas_status.
   */
  int32_t status;
  /**
   * errno or GetLastError(), or 0.
   */
  int32_t os_code;
  /**
   * One line that says what to do, NUL-terminated.
   */
  char message[248];
} peas_error;

/**
 * An engine as others see it. 256 bytes.
 */
typedef struct peas_engine_info {
  /**
   * Bytes per second that all jobs may send; 0: no limit.
   */
  uint64_t upload_limit;
  /**
   * Bytes per second that all jobs may receive; 0: no limit.
   */
  uint64_t download_limit;
  /**
   * Jobs that are not over.
   */
  uint32_t jobs;
  /**
   * The port where links are accepted; 0 with listen=off.
   */
  uint32_t port;
  /**
   * Where links are accepted: "192.0.2.1:7000"; empty with listen=off.
   */
  char listen[64];
  /**
   * The engine's public key: 64 hexadecimal digits.
   */
  char peer_id[72];
  /**
   * Zero.
   */
  uint64_t reserved[12];
} peas_engine_info;

/**
 * A job of an engine. Zero is no job. Never reused while the engine lives.
 */
typedef uint64_t peas_job;

/**
 * A job at one moment. 256 bytes.
 */
typedef struct peas_info {
  /**
   * A peas_state.
   */
  uint32_t state;
  /**
   * A peas_status: why the job ended; PEAS_OK until then.
   */
  int32_t status;
  /**
   * A peas_verb.
   */
  uint32_t verb;
  /**
   * A peas_pause.
   */
  uint32_t paused;
  /**
   * 1 once PEAS_EVENT_COMPLETE is due or was given.
   */
  uint32_t complete;
  /**
   * Pieces verified on disk.
   */
  uint32_t pieces_done;
  /**
   * Pieces of the content; 0 until the pea is read.
   */
  uint32_t pieces_total;
  /**
   * Of a verify: pieces found missing or wrong. Of others: missing pieces that no linked peer holds.
   */
  uint32_t pieces_bad;
  /**
   * Bytes verified on disk; of a create or a verify: bytes hashed.
   */
  uint64_t bytes_done;
  /**
   * Bytes of the content; 0 until the pea is read.
   */
  uint64_t bytes_total;
  /**
   * Bytes found on this machine: resumed, or taken from files that were there.
   */
  uint64_t bytes_reused;
  /**
   * Bytes received from origins, those who published the content.
   */
  uint64_t bytes_from_origin;
  /**
   * Bytes received from other peers.
   */
  uint64_t bytes_from_peers;
  /**
   * Bytes received in vain.
   */
  uint64_t bytes_wasted;
  /**
   * Bytes sent to others.
   */
  uint64_t bytes_sent;
  /**
   * Bytes per second received, over the last seconds.
   */
  uint64_t rate_received;
  /**
   * Bytes per second sent, over the last seconds.
   */
  uint64_t rate_sent;
  /**
   * Milliseconds to go at this rate, or -1.
   */
  int64_t remaining_ms;
  /**
   * Peers linked.
   */
  uint32_t peers;
  /**
   * Peers known.
   */
  uint32_t members;
  /**
   * 1 while an origin is linked.
   */
  uint32_t origin_linked;
  /**
   * Zero.
   */
  uint32_t reserved_1;
  /**
   * Bytes received from web servers that the pea names.
   */
  uint64_t bytes_from_web;
  /**
   * Zero.
   */
  uint64_t reserved[15];
} peas_info;

/**
 * Something that happened. 512 bytes.
 */
typedef struct peas_event {
  /**
   * A peas_event_type. Skip types that you do not know.
   */
  uint32_t kind;
  /**
   * Of PEAS_EVENT_ENDED, a peas_status; of others 0.
   */
  int32_t status;
  /**
   * The job that it is about, or 0.
   */
  uint64_t job;
  /**
   * Bytes done, as in peas_info.
   */
  uint64_t bytes_done;
  /**
   * Bytes of the content.
   */
  uint64_t bytes_total;
  /**
   * Of notices and log lines: a peas_level.
   */
  uint32_t level;
  /**
   * Of notices: a peas_notice_type.
   */
  uint32_t notice;
  /**
   * Of notices: a number, see peas_notice_type.
   */
  uint64_t value;
  /**
   * Of PEAS_EVENT_ENDED: errno or GetLastError(), or 0.
   */
  int32_t os_code;
  /**
   * Zero.
   */
  uint32_t reserved_1;
  /**
   * Zero.
   */
  uint64_t reserved[9];
  /**
   * One line, NUL-terminated; may be empty.
   */
  char message[384];
} peas_event;

/**
 * The event function. Called with one event at a time. `one` is valid until the function returns.
 */
typedef void (*peas_event_fn)(void *user_data, const struct peas_event *one);

/**
 * The wake function. Called by a thread of the engine when the event queue stops being empty. It may set a flag, signal a condition or post a
 * message; it must not block. Calls of peas from it return PEAS_INVALID.
 */
typedef void (*peas_wake_fn)(void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that runs, to compare with that of the header: functions may have come since.
 *
 * @return a number as PEAS_VERSION
 */
PEAS_API uint32_t peas_version(void);

/**
 * The version of the library, for people: "0.1.0".
 *
 * @return static storage
 */
PEAS_API const char *peas_version_string(void);

/**
 * The name of a status, for logs: "PEAS_FULL".
 *
 * @param status  any number
 * @return        static storage; never NULL, not for unknown numbers either
 */
PEAS_API const char *peas_status_string(int32_t status);

/**
 * Starts an engine: its threads and its listener. Takes some milliseconds. The only thing to free, with peas_engine_close.
 *
 * Errors: PEAS_INVALID (an option; the message names it), PEAS_NOT_FOUND (a file of web_ca), PEAS_IO (the address cannot be listened on, or no threads or descriptors
 * are left; os_code says why), PEAS_BUSY (1,024 engines in this process).
 *
 * @param options  settings of the engine, or NULL
 * @param engine   receives the engine, or NULL on failure
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK, or why not
 */
PEAS_API
peas_status peas_engine_new(const char *const *options,
                            struct peas_engine **engine,
                            struct peas_error *error);

/**
 * Stops an engine and frees it, whatever is returned. What was verified stays on disk for the next run.
 *
 * Calls that wait in other threads return PEAS_CLOSED, and so does every later call. Waits at most timeout_ms (and 100 ms) for
 * the disk and for peers to be told; PEAS_TIMEOUT says that this was not enough and that a thread was left behind. After PEAS_OK the
 * targets of its jobs are free for other engines and processes. May be called from the event function, not from the wake function.
 *
 * @param engine      the engine, or NULL for nothing to do
 * @param timeout_ms  0 to leave at once
 * @return            PEAS_OK; PEAS_TIMEOUT; or PEAS_CLOSED, PEAS_FORKED, PEAS_INVALID: there was nothing to close
 */
PEAS_API
peas_status peas_engine_close(struct peas_engine *engine,
                              uint32_t timeout_ms);

/**
 * Reads where an engine listens, who it is, and its limits. Does not block.
 *
 * @param engine  the engine
 * @param info    receives the numbers; untouched on failure
 * @return        PEAS_OK, or PEAS_INVALID, PEAS_CLOSED, PEAS_FORKED, PEAS_INTERNAL, as from every function that takes an engine
 */
PEAS_API
peas_status peas_engine_get_info(struct peas_engine *engine,
                                 struct peas_engine_info *info);

/**
 * Changes settings while running: limits, paused, peers, log. Takes effect within 100 ms. Does not block.
 *
 * Errors: PEAS_INVALID (an option that is unknown or not for this; nothing was changed), PEAS_NOT_FOUND (no such job, or it is
 * over).
 *
 * @param engine   the engine
 * @param job      the job, or 0 for the engine
 * @param options  what to change, and to what
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK, or why not
 */
PEAS_API
peas_status peas_set(struct peas_engine *engine,
                     peas_job job,
                     const char *const *options,
                     struct peas_error *error);

/**
 * Makes a pea: hashes the file or folder at source, writes its description to pea.
 *
 * Like all calls that start a job, this touches no disk and does not block: what is wrong with a path arrives as
 * PEAS_EVENT_ENDED, and from peas_wait. What is at pea is replaced when all is hashed, in one step.
 *
 * @param engine   the engine
 * @param source   the file or folder to describe; not changed
 * @param pea      path of the pea to write
 * @param options  settings of the job, or NULL
 * @param job      receives the job, or 0 on failure; may be NULL
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
 */
PEAS_API
peas_status peas_create(struct peas_engine *engine,
                        const char *source,
                        const char *pea,
                        const char *const *options,
                        peas_job *job,
                        struct peas_error *error);

/**
 * Shares what lies at source, which must be what the pea says. Goes on until cancelled. Each piece is hashed before it is sent:
 * one that was changed on disk is not sent, and nothing here is ever repaired.
 *
 * @param engine   the engine
 * @param pea      path of the pea
 * @param source   the file or folder that it describes
 * @param options  settings of the job, or NULL
 * @param job      receives the job, or 0 on failure; may be NULL
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
 */
PEAS_API
peas_status peas_share(struct peas_engine *engine,
                       const char *pea,
                       const char *source,
                       const char *const *options,
                       peas_job *job,
                       struct peas_error *error);

/**
 * Makes target (a file, or a folder if the pea describes one) what the pea says: keeps what is right, receives what is not, and
 * shares what it has. Also resumes, repairs and updates. The target changes only when all is verified and durable.
 *
 * The options must say what makes the pea the right one: trust=key:HEX, pin=HEX or trust=file. An engine shares or installs
 * each content once at a time: another job ends with PEAS_BUSY, unless the first one is complete and does not share, or was
 * cancelled.
 *
 * @param engine   the engine
 * @param pea      path of the pea
 * @param target   path that the content shall have; folders above it are made
 * @param options  settings of the job, or NULL
 * @param job      receives the job, or 0 on failure; may be NULL
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
 */
PEAS_API
peas_status peas_install(struct peas_engine *engine,
                         const char *pea,
                         const char *target,
                         const char *const *options,
                         peas_job *job,
                         struct peas_error *error);

/**
 * Hashes what lies at place against the pea, and changes nothing. Complete: all is right. Ends with PEAS_CORRUPT otherwise,
 * with a notice for each bad file and the count of bad pieces in peas_info.
 *
 * @param engine   the engine
 * @param pea      path of the pea
 * @param place    the file or folder that it describes
 * @param options  settings of the job, or NULL
 * @param job      receives the job, or 0 on failure; may be NULL
 * @param error    receives the reason on failure; may be NULL
 * @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
 */
PEAS_API
peas_status peas_verify(struct peas_engine *engine,
                        const char *pea,
                        const char *place,
                        const char *const *options,
                        peas_job *job,
                        struct peas_error *error);

/**
 * Ends a job. What was verified stays on disk. PEAS_EVENT_ENDED follows. Does not block. Of a job that is over: nothing to do.
 *
 * @param engine  the engine
 * @param job     the job
 * @return        PEAS_OK, or PEAS_NOT_FOUND
 */
PEAS_API
peas_status peas_cancel(struct peas_engine *engine,
                        peas_job job);

/**
 * Waits until the job is complete, or over. Takes no event from the queue. Any number of threads may wait.
 *
 * @param engine      the engine
 * @param job         the job
 * @param timeout_ms  how long; 0 does not block, -1 waits without end
 * @param error       receives why the job ended; may be NULL
 * @return            PEAS_OK when complete, PEAS_TIMEOUT, PEAS_NOT_FOUND, or why the job ended
 */
PEAS_API
peas_status peas_wait(struct peas_engine *engine,
                      peas_job job,
                      int32_t timeout_ms,
                      struct peas_error *error);

/**
 * Reads what a job is doing. Does not block; cheap enough to call every frame. Jobs that are over are remembered, the last
 * 4,096 of them.
 *
 * @param engine  the engine
 * @param job     the job
 * @param info    receives the numbers; untouched on failure
 * @return        PEAS_OK, or PEAS_NOT_FOUND
 */
PEAS_API
peas_status peas_job_info(struct peas_engine *engine,
                          peas_job job,
                          struct peas_info *info);

/**
 * Writes the pea of a running share or install to path, with a fresh list of those who hold the content now, this peer
 * included. What was signed is unchanged. Blocks for a small durable write.
 *
 * @param engine  the engine
 * @param job     the share or install
 * @param path    where to write; what is there is replaced in one step
 * @param error   receives the reason on failure; may be NULL
 * @return        PEAS_OK, PEAS_NOT_FOUND (no such job, or it is not at work), PEAS_IO, PEAS_FULL
 */
PEAS_API
peas_status peas_refresh(struct peas_engine *engine,
                         peas_job job,
                         const char *path,
                         struct peas_error *error);

/**
 * Writes what a pea says - name, size, files, release, owners - as JSON, like snprintf: at most capacity bytes, with a NUL.
 * Needs no engine and no network; reads the file. Asks nobody whether the pea can be trusted. docs/DESCRIBE.md lists the fields.
 *
 * @param pea       path of the pea
 * @param out_text  receives the text; may be NULL if capacity is 0
 * @param capacity  bytes at out_text
 * @param error     receives the reason on failure (PEAS_NOT_FOUND, PEAS_IO, PEAS_CORRUPT, PEAS_INVALID); may be NULL
 * @return          the length of the text without its NUL (more than capacity - 1: it was cut), or 0 on failure
 */
PEAS_API
size_t peas_describe(const char *pea,
                     char *out_text,
                     size_t capacity,
                     struct peas_error *error);

/**
 * Writes statistics as JSON, like snprintf: of a job, or with job 0 of the engine and all its running jobs. docs/STATS.md lists
 * the fields; they are only ever added. Does not block.
 *
 * @param engine    the engine
 * @param job       the job, or 0
 * @param out_text  receives the text; may be NULL if capacity is 0
 * @param capacity  bytes at out_text
 * @return          the length of the text without its NUL (more than capacity - 1: it was cut), or 0 on failure
 */
PEAS_API
size_t peas_stats(struct peas_engine *engine,
                  peas_job job,
                  char *out_text,
                  size_t capacity);

/**
 * Takes events from the queue, waiting for the first. Each event goes to one caller.
 *
 * @param engine      the engine
 * @param events      receives at most capacity events
 * @param capacity    how many events fit there, at least 1
 * @param timeout_ms  how long to wait for the first; 0 does not block, -1 waits without end
 * @return            how many were written to events; 0: time is up; or a negative peas_status (PEAS_BUSY while a callback is set)
 */
PEAS_API
int32_t peas_poll(struct peas_engine *engine,
                  struct peas_event *events,
                  int32_t capacity,
                  int32_t timeout_ms);

/**
 * Calls `callback` on this thread for each waiting event, waiting for the first. For programs with a main loop: call it every
 * frame with timeout 0. Any function of peas may be called from the callback.
 *
 * @param engine      the engine
 * @param callback    the function to call, once for each event; not kept
 * @param user_data   handed to it as it is
 * @param timeout_ms  how long to wait for the first; 0 does not block, -1 waits without end
 * @return            how many events were delivered, or a negative peas_status (PEAS_BUSY while a callback is set)
 */
PEAS_API
int32_t peas_dispatch(struct peas_engine *engine,
                      peas_event_fn callback,
                      void *user_data,
                      int32_t timeout_ms);

/**
 * Has events delivered by callback, on a thread that does nothing else, instead of by peas_poll or peas_dispatch; NULL goes
 * back. Never two calls at once; a slow callback delays only later callbacks (progress folds, final events are kept). Any
 * function of peas may be called from it, peas_engine_close too. Once this returns, the former callback is not running and
 * will not be called again - unless it was called from that callback itself. Do not call it while holding a lock that the
 * callback takes.
 *
 * @param engine     the engine
 * @param callback   the function to call, or NULL; kept until it is replaced or the engine is closed
 * @param user_data  handed to it as it is; must stay usable as long
 * @return           PEAS_OK, or PEAS_IO (no thread could be made)
 */
PEAS_API
peas_status peas_set_callback(struct peas_engine *engine,
                              peas_event_fn callback,
                              void *user_data);

/**
 * A descriptor that is readable exactly while events wait, for select, poll, epoll, kqueue, asyncio. Only wait on it: do not
 * read it, write it or close it. It lives as long as the engine, and becomes readable a last time when peas_engine_close
 * begins, so that a thread asleep on it wakes up. Take it out of an epoll set before that: its number may be used again.
 *
 * @param engine  the engine
 * @return        the descriptor, or -1
 */
PEAS_API
ptrdiff_t peas_pollable(struct peas_engine *engine);

/**
 * Sets the wake function, or removes it with NULL. Once this returns, the former one is not running and will not be called
 * again.
 *
 * @param engine     the engine
 * @param wake       the function to call when the queue stops being empty, or NULL; kept until it is replaced or the engine is closed
 * @param user_data  handed to it as it is; must stay usable as long
 * @return           PEAS_OK
 */
PEAS_API
peas_status peas_set_wake(struct peas_engine *engine,
                          peas_wake_fn wake,
                          void *user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PEAS_H */
