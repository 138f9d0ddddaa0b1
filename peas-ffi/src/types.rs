//! What crosses the boundary: numbers, plain structs of fixed size, function pointers.
//!
//! Values and sizes never change within `libpeas.so.0`; new fields take reserved space, which is zero until then. No enum, bool
//! or reference ever comes *in*: a host may pass any bits, so inputs are integers and pointers that are checked.
//! Nothing here does anything.

use safer_ffi::c_char;
use safer_ffi::prelude::*;
use std::ffi::c_void;

/// The version of this header: 0x00MMmmpp. Compare with peas_version().
pub const PEAS_VERSION: u32 = 0x0000_0100;

/// Bytes of the message of a peas_error, its NUL included.
pub(crate) const ERROR_TEXT_BYTES: usize = 248;
/// Bytes of the message of a peas_event, its NUL included.
pub(crate) const EVENT_TEXT_BYTES: usize = 384;

/// Why a call failed, or why a job ended. Zero is success, failures are negative.
/// Values may be added: treat one you do not know as PEAS_INTERNAL.
#[derive_ReprC(rename = "peas_status")]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_status {
    /// Success.
    PEAS_OK = 0,
    /// An argument or an option is wrong. Nothing was done.
    PEAS_INVALID = -1,
    /// There is no such job, file or folder.
    PEAS_NOT_FOUND = -2,
    /// The pea is damaged, or what lies on disk is not what it says and may not be replaced.
    PEAS_CORRUPT = -3,
    /// The file system or the network of this machine failed; os_code says how.
    PEAS_IO = -4,
    /// The disk is full.
    PEAS_FULL = -5,
    /// Another job or another process is at work on the same target, or the engine has all it can hold.
    PEAS_BUSY = -6,
    /// Nobody who can be reached has the pieces that are missing.
    PEAS_UNREACHABLE = -7,
    /// The pea is not signed by enough of the keys that were given, or is not the one that was pinned.
    PEAS_UNTRUSTED = -8,
    /// The job was cancelled.
    PEAS_CANCELLED = -9,
    /// The time given to the call ran out. Nothing was changed.
    PEAS_TIMEOUT = -10,
    /// The engine is closed or closing.
    PEAS_CLOSED = -11,
    /// The engine belongs to the parent of this process.
    PEAS_FORKED = -12,
    /// A bug in peas. The engine does nothing more; close it.
    PEAS_INTERNAL = -13,
    /// The pea is older than one that was accepted before (option state_dir).
    PEAS_ROLLBACK = -14,
    /// The pea's time is over.
    PEAS_EXPIRED = -15,
    /// The pea is of another channel than the one that was asked for.
    PEAS_WRONG_CHANNEL = -16,
    /// The same release was accepted before with other content (option state_dir).
    PEAS_EQUIVOCATION = -17,
}

/// What an event says.
#[derive_ReprC(rename = "peas_event_type")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_event_type {
    /// The job moved on. At most one of these waits per job, and it has the latest numbers.
    PEAS_EVENT_PROGRESS = 1,
    /// The job did its work. An install: whole, verified, on stable storage, under its final name. A share: others are
    /// served from now on. A create: the pea is written. A verify: all is as the pea says.
    PEAS_EVENT_COMPLETE = 2,
    /// The job is over; status says why, PEAS_OK if it was complete. The last event of a job; each job has exactly one.
    PEAS_EVENT_ENDED = 3,
    /// Something that a person may want to know; `notice` says what, for programs.
    PEAS_EVENT_NOTICE = 4,
    /// A line of the log, if the option log asks for them.
    PEAS_EVENT_LOG = 5,
}

/// What a notice is about.
#[derive_ReprC(rename = "peas_notice_type")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_notice_type {
    /// What was on disk is known; `value`: bytes that need not be received.
    PEAS_NOTICE_STARTED = 1,
    /// The origin cannot be reached any more; other peers go on.
    PEAS_NOTICE_ORIGIN_LOST = 2,
    /// The origin is back.
    PEAS_NOTICE_ORIGIN_BACK = 3,
    /// A peer sent what is not the content, and was banned.
    PEAS_NOTICE_PEER_BANNED = 4,
    /// `value` missing pieces have no holder within reach; 0: all have one again.
    PEAS_NOTICE_UNAVAILABLE = 5,
    /// The job stands still; `value` is a peas_pause.
    PEAS_NOTICE_PAUSED = 6,
    /// The job goes on.
    PEAS_NOTICE_RESUMED = 7,
    /// Piece `value` on this disk was damaged; it is received again.
    PEAS_NOTICE_DAMAGED = 8,
    /// A verify found this file missing or wrong; the message is its path.
    PEAS_NOTICE_BAD_FILE = 9,
    /// `value` older notices and log lines were dropped, since nobody took them.
    PEAS_NOTICE_DROPPED = 10,
    /// A web server that the pea names gave nothing; the message is its address, and why.
    PEAS_NOTICE_WEB_FAILED = 11,
}

/// What a job is for.
#[derive_ReprC(rename = "peas_verb")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_verb {
    /// peas_create.
    PEAS_VERB_CREATE = 1,
    /// peas_share.
    PEAS_VERB_SHARE = 2,
    /// peas_install.
    PEAS_VERB_INSTALL = 3,
    /// peas_verify.
    PEAS_VERB_VERIFY = 4,
}

/// What a job is doing.
#[derive_ReprC(rename = "peas_state")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_state {
    /// Reading and hashing what is on disk.
    PEAS_STATE_CHECKING = 1,
    /// Receiving what is missing, and sharing what is there.
    PEAS_STATE_RECEIVING = 2,
    /// Sharing the whole content.
    PEAS_STATE_SHARING = 3,
    /// Over.
    PEAS_STATE_ENDED = 4,
    /// All is received; it is being put under its final names.
    PEAS_STATE_PUBLISHING = 5,
}

/// Why a job stands still.
#[derive_ReprC(rename = "peas_pause")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum peas_pause {
    /// It does not stand still.
    PEAS_PAUSE_NONE = 0,
    /// The host said so (option paused).
    PEAS_PAUSE_HOST = 1,
    /// The disk is full. The job goes on by itself when there is room.
    PEAS_PAUSE_DISK_FULL = 2,
    /// The disk refuses. The job goes on by itself when it takes writes again.
    PEAS_PAUSE_DISK_ERROR = 3,
}

/// How loud a notice or a log line is. The option log takes the lower-case names.
#[derive_ReprC(rename = "peas_level")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum peas_level {
    /// Something failed.
    PEAS_LEVEL_ERROR = 1,
    /// Something is wrong and was dealt with.
    PEAS_LEVEL_WARNING = 2,
    /// Good to know.
    PEAS_LEVEL_INFO = 3,
    /// For those who look for a fault.
    PEAS_LEVEL_DEBUG = 4,
}

/// An engine: threads, sockets and jobs. Opaque: a value that peas looks up, so a call on an engine that was closed is an
/// error and not a crash.
#[derive_ReprC(rename = "peas_engine")]
#[repr(opaque)]
pub struct peas_engine {
    _opaque: [u8; 0],
}

/// A job of an engine. Zero is no job. Never reused while the engine lives.
pub type peas_job = u64;

/// Why a call failed, or a job ended, for people and logs. 256 bytes.
#[derive_ReprC(rename = "peas_error")]
#[repr(C)]

pub struct peas_error {
    /// A peas_status.
    pub status: i32,
    /// errno or GetLastError(), or 0.
    pub os_code: i32,
    /// One line that says what to do, NUL-terminated.
    pub message: [c_char; 248],
}

/// An engine as others see it. 256 bytes.
#[derive_ReprC(rename = "peas_engine_info")]
#[repr(C)]

pub struct peas_engine_info {
    /// Bytes per second that all jobs may send; 0: no limit.
    pub upload_limit: u64,
    /// Bytes per second that all jobs may receive; 0: no limit.
    pub download_limit: u64,
    /// Jobs that are not over.
    pub jobs: u32,
    /// The port where links are accepted; 0 with listen=off.
    pub port: u32,
    /// Where links are accepted: "192.0.2.1:7000"; empty with listen=off.
    pub listen: [c_char; 64],
    /// The engine's public key: 64 hexadecimal digits.
    pub peer_id: [c_char; 72],
    /// Zero.
    pub reserved: [u64; 12],
}

/// A job at one moment. 256 bytes.
#[derive_ReprC(rename = "peas_info")]
#[repr(C)]

pub struct peas_info {
    /// A peas_state.
    pub state: u32,
    /// A peas_status: why the job ended; PEAS_OK until then.
    pub status: i32,
    /// A peas_verb.
    pub verb: u32,
    /// A peas_pause.
    pub paused: u32,
    /// 1 once PEAS_EVENT_COMPLETE is due or was given.
    pub complete: u32,
    /// Pieces verified on disk.
    pub pieces_done: u32,
    /// Pieces of the content; 0 until the pea is read.
    pub pieces_total: u32,
    /// Of a verify: pieces found missing or wrong. Of others: missing pieces that no linked peer holds.
    pub pieces_bad: u32,
    /// Bytes verified on disk; of a create or a verify: bytes hashed.
    pub bytes_done: u64,
    /// Bytes of the content; 0 until the pea is read.
    pub bytes_total: u64,
    /// Bytes found on this machine: resumed, or taken from files that were there.
    pub bytes_reused: u64,
    /// Bytes received from origins, those who published the content.
    pub bytes_from_origin: u64,
    /// Bytes received from other peers.
    pub bytes_from_peers: u64,
    /// Bytes received in vain.
    pub bytes_wasted: u64,
    /// Bytes sent to others.
    pub bytes_sent: u64,
    /// Bytes per second received, over the last seconds.
    pub rate_received: u64,
    /// Bytes per second sent, over the last seconds.
    pub rate_sent: u64,
    /// Milliseconds to go at this rate, or -1.
    pub remaining_ms: i64,
    /// Peers linked.
    pub peers: u32,
    /// Peers known.
    pub members: u32,
    /// 1 while an origin is linked.
    pub origin_linked: u32,
    /// Zero.
    pub reserved_1: u32,
    /// Bytes received from web servers that the pea names.
    pub bytes_from_web: u64,
    /// Zero.
    pub reserved: [u64; 15],
}

/// Something that happened. 512 bytes.
#[derive_ReprC(rename = "peas_event")]
#[repr(C)]

pub struct peas_event {
    /// A peas_event_type. Skip types that you do not know.
    pub kind: u32,
    /// Of PEAS_EVENT_ENDED, a peas_status; of others 0.
    pub status: i32,
    /// The job that it is about, or 0.
    pub job: u64,
    /// Bytes done, as in peas_info.
    pub bytes_done: u64,
    /// Bytes of the content.
    pub bytes_total: u64,
    /// Of notices and log lines: a peas_level.
    pub level: u32,
    /// Of notices: a peas_notice_type.
    pub notice: u32,
    /// Of notices: a number, see peas_notice_type.
    pub value: u64,
    /// Of PEAS_EVENT_ENDED: errno or GetLastError(), or 0.
    pub os_code: i32,
    /// Zero.
    pub reserved_1: u32,
    /// Zero.
    pub reserved: [u64; 9],
    /// One line, NUL-terminated; may be empty.
    pub message: [c_char; 384],
}

/// The wake function. Called by a thread of the engine when the event queue stops being empty. It may set a flag, signal a condition or post a
/// message; it must not block. Calls of peas from it return PEAS_INVALID.
pub type peas_wake_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// The event function. Called with one event at a time. `one` is valid until the function returns.
pub type peas_event_fn = Option<unsafe extern "C" fn(user_data: *mut c_void, one: *const peas_event)>;

const _: () = {
    assert!(size_of::<peas_error>() == 256 && size_of::<peas_engine_info>() == 256);
    assert!(size_of::<peas_info>() == 256 && size_of::<peas_event>() == 512);
    assert!(size_of::<[c_char; 248]>() == ERROR_TEXT_BYTES && size_of::<[c_char; 384]>() == EVENT_TEXT_BYTES);
};
