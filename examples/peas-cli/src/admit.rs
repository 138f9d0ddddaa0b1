//! `peas admit`: an authority's word that a key may take part in its swarms.

use crate::args::AdmitArgs;
use crate::exit::{Failure, USAGE};
use crate::keys;
use crate::output::{field, say};
use crate::pea::now_unix_s;
use crate::units;
use peas_core::manifest::{Certificate, Roles};
use peas_core::unit::PeerId;

/// Certificates begin this much in the past, for members whose clocks are slow.
const SLOW_CLOCK_S: u64 = 300;

pub fn run(args: AdmitArgs) -> Result<(), Failure> {
    let authority = keys::read_secret(&args.authority)?;
    let now = now_unix_s();
    let certificate = Certificate {
        peer: PeerId(args.peer.0),
        content: args.content,
        roles: args.roles.iter().map(|&role| Roles::from(role)).reduce(Roles::and).unwrap_or(Roles::ALL),
        not_before_unix_s: now.saturating_sub(SLOW_CLOCK_S),
        not_after_unix_s: now.saturating_add(args.duration.as_secs()),
    };
    let no_content = |error| Failure::new(USAGE, format!("--content: {error}"), "leave it out, or name the id that `peas inspect` shows");
    let bytes = certificate.issue(&authority).map_err(no_content)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let until = units::date(certificate.not_after_unix_s);
    let text = format!("# Certificate of peas for {}, good until {until} UTC. No secret.\n{digits}\n", keys::hex(&args.peer.0));
    std::fs::write(&args.output, text).map_err(|source| Failure::file("write", &args.output, source))?;
    say(&field("certificate", &args.output.display().to_string()));
    say(&field("good until", &format!("{until} UTC")));
    say(&field("authority", &format!("{} (peas create --access members --authority)", keys::hex(&keys::public_of(&authority)))));
    say(&field("use with", "peas install PEA --identity KEYFILE --certificate FILE"));
    Ok(())
}
