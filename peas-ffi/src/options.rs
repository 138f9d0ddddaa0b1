//! Every option that a host may write, in one table: it parses them, it finds the nearest name when one is misspelt, and it
//! writes docs/OPTIONS.md.
//!
//! An option is "name=value". What a value means is in `values.rs`; what is done with it, in `settings.rs`.

use crate::failure::Failure;
use crate::types::peas_verb;

/// Which call takes an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// peas_engine_new.
    Engine,
    /// peas_create.
    Create,
    /// peas_share.
    Share,
    /// peas_install.
    Install,
    /// peas_verify.
    Verify,
    /// peas_set with job 0.
    SetEngine,
    /// peas_set with a job.
    SetJob,
}

impl Call {
    pub(crate) const ALL: [Call; 7] = [Call::Engine, Call::Create, Call::Share, Call::Install, Call::Verify, Call::SetEngine, Call::SetJob];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Engine => "peas_engine_new",
            Call::Create => "peas_create",
            Call::Share => "peas_share",
            Call::Install => "peas_install",
            Call::Verify => "peas_verify",
            Call::SetEngine => "peas_set with job 0",
            Call::SetJob => "peas_set with a job",
        }
    }

    pub(crate) fn of_verb(verb: peas_verb) -> Call {
        match verb {
            peas_verb::PEAS_VERB_CREATE => Call::Create,
            peas_verb::PEAS_VERB_SHARE => Call::Share,
            peas_verb::PEAS_VERB_INSTALL => Call::Install,
            peas_verb::PEAS_VERB_VERIFY => Call::Verify,
        }
    }
}

/// One option.
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    /// How its value is written.
    pub(crate) kind: &'static str,
    pub(crate) default: &'static str,
    pub(crate) calls: &'static [Call],
    /// Whether it may be given several times.
    pub(crate) many: bool,
    pub(crate) doc: &'static str,
}

const fn one(name: &'static str, kind: &'static str, default: &'static str, calls: &'static [Call], doc: &'static str) -> Opt {
    Opt { name, kind, default, calls, many: false, doc }
}

const fn many(name: &'static str, kind: &'static str, default: &'static str, calls: &'static [Call], doc: &'static str) -> Opt {
    Opt { name, kind, default, calls, many: true, doc }
}

use Call::*;

/// The options, in the order of the documentation.
pub(crate) const OPTIONS: &[Opt] = &[
    one(
        "listen",
        "ADDR:PORT or off",
        "0.0.0.0:0",
        &[Engine],
        "Where links are accepted. Port 0 picks one that is free; `off` accepts none.",
    ),
    one(
        "upload_limit",
        "rate",
        "0",
        &[Engine, Share, Install, SetEngine, SetJob],
        "Most bytes per second sent: by the whole engine, or by one job within the engine's. 0: no limit.",
    ),
    one(
        "download_limit",
        "rate",
        "0",
        &[Engine, Install, SetEngine, SetJob],
        "Most bytes per second received: by the whole engine, or by one job within the engine's. 0: no limit.",
    ),
    one(
        "threads",
        "number",
        "0",
        &[Engine, Create],
        "Threads for sockets, or for hashing of a create. 0: for sockets one for each four cores, at most 4; for hashing one per core.",
    ),
    one("disk_threads", "number", "0", &[Engine], "Threads for disks. 0: 2."),
    one("identity", "64 hex digits", "a new one", &[Engine], "Secret key of this peer. Give one to keep the same peer id from run to run."),
    one(
        "plain",
        "yes or no",
        "no",
        &[Engine],
        "Carry the content in clear between peers that both say so. What arrives is verified either way; control messages stay encrypted.",
    ),
    one(
        "scope",
        "auto, public or any",
        "auto",
        &[Engine],
        "Which addresses learnt from others may be dialled. `auto`: public ones, and private ones of a network that this machine or the pea named; `any`: all, for tests on one machine.",
    ),
    one(
        "state_dir",
        "path",
        "none",
        &[Engine, Share, Install, Verify],
        "Folder that remembers the highest release accepted for each set of keys and channel, so that an older one is refused (PEAS_ROLLBACK). For a job: instead of the engine's.",
    ),
    many(
        "web_ca",
        "path",
        "none",
        &[Engine],
        "File (PEM or DER) of certificate authorities that https servers may be certified by, besides those that browsers trust. Read by peas_engine_new; refused by builds without the feature `https`.",
    ),
    one(
        "log",
        "off, error, warning, info or debug",
        "off",
        &[Engine, SetEngine],
        "Which log lines arrive as PEAS_EVENT_LOG. Notices arrive always.",
    ),
    many(
        "trust",
        "file or key:HEX",
        "none",
        &[Install, Share, Verify],
        "What makes this pea the right one. `file`: whoever gave the file answers for it. `key:` and 64 hex digits: a public key that must have signed it; several may be given, see threshold. peas_install needs trust or pin; the others take the file by default.",
    ),
    one("threshold", "number", "1", &[Install, Share, Verify], "How many different keys of those given must have signed."),
    one("pin", "64 hex digits", "none", &[Install, Share, Verify], "Id of the content that the pea must describe."),
    one(
        "channel",
        "text",
        "any",
        &[Install, Share, Verify, Create],
        "Channel that the pea must be of; of a create: the channel it is for, empty by default.",
    ),
    one(
        "swarm_secret",
        "64 hex digits",
        "none",
        &[Install, Share],
        "What lets this peer into a swarm whose pea was made with access=secret. Ignored by others.",
    ),
    one(
        "certificate",
        "292 hex digits",
        "none",
        &[Install, Share],
        "What lets this peer into a swarm whose pea was made with access=members: what its authority wrote for the engine's identity, with `peas admit`. Ignored by others.",
    ),
    many("peer", "ADDR:PORT", "none", &[Install, Share, SetJob], "Address of a peer to try, besides those that the pea names."),
    one(
        "share",
        "no, forever, time or ratio",
        "no",
        &[Install],
        "How long to go on sharing once complete: `no`, `forever`, a time (`10m`), or until sent / size reaches a ratio (`1.5x`). With `no` a job stays at most 10 s, and only if it alone holds a piece.",
    ),
    one(
        "from_web",
        "starved, always or never",
        "starved",
        &[Install],
        "When to receive from the web servers that the pea names: `starved`, while peers bring next to nothing (none within reach, or less than 64 KiB/s for 4 s); `always`, beside the peers.",
    ),
    one("paused", "yes or no", "no", &[Install, SetJob], "Neither receive nor send until set to no. Links stay."),
    one(
        "memory_limit",
        "size",
        "48M",
        &[Install, Share],
        "Most bytes of content in memory, received and not yet written, or read and not yet sent.",
    ),
    one("neighbors", "number", "32", &[Install, Share], "Peers that a job tries to be linked with."),
    one("links", "number", "128", &[Install, Share], "Most links of a job. Others are refused with addresses of peers that may take them."),
    one(
        "region",
        "number",
        "0",
        &[Install, Share],
        "A number for the network that this peer is in; peers of one region are preferred. 0: unknown.",
    ),
    one("origin", "yes or no", "yes", &[Share], "Hand out each piece once before serving like anybody else: what the publisher does."),
    one(
        "check_first",
        "yes or no",
        "no",
        &[Share],
        "Hash everything before the first byte is served. Otherwise each piece is hashed when it is first read.",
    ),
    one(
        "copies_limit",
        "number",
        "none",
        &[Share],
        "Most bytes sent, in multiples of the content (`2`, `1.5`). None: as long as somebody asks.",
    ),
    one("name", "text", "the file's", &[Create], "Name that people see."),
    one("piece_size", "size", "by content", &[Create], "Bytes of a piece, a power of two."),
    many(
        "owner",
        "[KEY@]HOST:PORT",
        "none",
        &[Create],
        "Where the content will be served, with the server's public key if known. Names are looked up by those who dial.",
    ),
    many("web", "URL", "none", &[Create], "HTTP(S) address of the content."),
    one(
        "access",
        "open, secret or members:HEX",
        "open",
        &[Create],
        "Who may join the swarm: whoever has the pea; who also gives a swarm_secret (any 32 random bytes, the same for all); or whose engine has an identity with a certificate of the authority with this public key (64 hex digits). Everybody else gets no answer.",
    ),
    one(
        "release",
        "number",
        "0",
        &[Create],
        "Rises with each release of a channel. 0: not numbered, and so without protection against rollback.",
    ),
    one("expires", "seconds since 1970", "0", &[Create], "When the pea is no longer accepted. 0: never."),
    many("sign", "64 hex digits", "none", &[Create], "Secret Ed25519 key to sign with."),
    many("sign_file", "path", "none", &[Create], "File that holds such a key: 64 hex digits, and comment lines that begin with #."),
    one("chance", "number", "random", &[Install, Share], "Seed of random choices: for tests that want to be repeatable."),
];

/// What a test build takes besides.
pub(crate) const TEST_OPTIONS: &[Opt] =
    if cfg!(feature = "test-hooks") { &[one("test.panic", "place", "none", &[SetEngine, Install], "Panics there.")] } else { &[] };

/// Splits "name=value" and finds the option; an unknown name names the nearest one in its error.
pub(crate) fn find(call: Call, text: &str) -> Result<(&'static Opt, &str), Failure> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::invalid(format!("option \"{text}\" is not of the form name=value")));
    };
    let all = || OPTIONS.iter().chain(TEST_OPTIONS);
    match all().find(|option| option.name == name) {
        Some(option) if option.calls.contains(&call) => Ok((option, value)),
        Some(option) => {
            let calls: Vec<_> = option.calls.iter().map(|call| call.name()).collect();
            Err(Failure::invalid(format!("option \"{name}\" is not for {}, but for {}", call.name(), calls.join(", "))))
        }
        None => {
            let near = all().filter(|option| option.calls.contains(&call)).min_by_key(|option| distance(option.name, name));
            let hint = near.map_or(String::new(), |option| format!("; did you mean \"{}\"?", option.name));
            let name: String = name.chars().take(64).collect();
            Err(Failure::invalid(format!("{} has no option \"{name}\"{hint}", call.name())))
        }
    }
}

/// How many letters must be changed to make one word the other (Levenshtein). Only the first 64 letters count.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The page docs/OPTIONS.md.
pub fn options_page() -> String {
    let mut page = String::from(
        "# Options\n\nWritten by the table in `src/options.rs`; do not edit.\n\nAn option is a string `name=value`; a call takes a NULL-terminated array of them, or NULL. An unknown name is an\nerror that names the nearest one. An option may be given once, unless marked *several*.\n\n\
         - **size**: bytes, with K, M, G or T for powers of 1024: `48M`, `1.5G`.\n- **rate**: a size per second: `500K`.\n- **time**: `250ms`, `90s`, `10m`, `2h`, `1d`, or plain seconds.\n",
    );
    for call in Call::ALL {
        page += &format!("\n## {}\n\n| name | value | default | meaning |\n|---|---|---|---|\n", call.name());
        for option in OPTIONS.iter().filter(|option| option.calls.contains(&call)) {
            let several = if option.many { " (*several*)" } else { "" };
            page += &format!("| `{}` | {}{several} | {} | {} |\n", option.name, option.kind, option.default, option.doc);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_is_for_some_call() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert!(!option.calls.is_empty() && !option.doc.is_empty(), "{}", option.name);
            assert!(OPTIONS[..at].iter().all(|other| other.name != option.name), "{}", option.name);
        }
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        let message = |call, text| find(call, text).err().expect("must be refused").message;
        assert!(message(Engine, "upload_limt=1").contains("did you mean \"upload_limit\""));
        assert!(message(Install, "treshold=1").contains("did you mean \"threshold\""));
        assert!(message(Install, "listen=1").contains("for peas_engine_new"));
        assert!(message(Install, "listen").contains("name=value"));
        assert!(message(Install, &format!("{}=1", "x".repeat(10_000))).len() < 200);
        assert!(find(Install, "peer=127.0.0.1:1").is_ok_and(|(option, value)| option.many && value == "127.0.0.1:1"));
    }

    #[test]
    fn the_options_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPTIONS.md");
        crate::gate::same_or_blessed(path.as_ref(), &options_page());
    }
}
