//! `peas verify`: hashes what lies on the disk against the pea; with `--repair` the bad pieces are fetched.

use crate::args::{StayArgs, VerifyArgs};
use crate::exit::{Failure, VERIFY};
use crate::install;
use crate::interrupt;
use crate::output::Output;
use crate::pea::{Pea, printable};
use crate::seed;
use crate::status;
use crate::units;
use peas_core::session::{self, Verified};
use serde_json::json;

/// Bad files that are listed for people.
const LISTED_MAX: usize = 20;

pub fn run(args: VerifyArgs) -> Result<(), Failure> {
    seed::stdin_is_free(&args.pea.pea, args.net.while_stdin)?;
    let pea = Pea::open(&args.pea, args.net.state_dir.as_deref())?;
    let place = pea.place(args.path.as_deref())?;
    let out = Output::new(args.net.json);
    pea.announce(&out);
    if !place.exists() && !args.repair {
        return Err(Failure::new(
            VERIFY,
            format!("{}: nothing is there", place.display()),
            "say where it lies, or fetch it with \"peas install\"",
        ));
    }
    if place.exists() {
        let on_bytes = |done, total| {
            out.hashing(done, total);
            !interrupt::is_asked()
        };
        let found = session::verify(&pea.manifest, &place, &on_bytes);
        out.clear();
        // A repair that was killed while it put the content in place may have left its folder: the install tidies it away.
        if report(&found?, &out) && !(args.repair && status::is_unfinished(&place)) {
            out.field("verified", &format!("{}: every byte is as the pea says", place.display()));
            return Ok(());
        }
    }
    if args.repair {
        return install::install(pea, place, StayArgs::default(), None, args.net, out);
    }
    Err(Failure::new(
        VERIFY,
        format!("{}: not what the pea says", place.display()),
        "fetch what is missing or damaged with: peas verify PEA PATH --repair",
    ))
}

/// Says what was found. True: all good.
fn report(found: &Verified, out: &Output) -> bool {
    let good = found.pieces_bad == 0 && found.bad_files.is_empty();
    out.event(&json!({
        "event": "verified", "good": good, "pieces_good": found.pieces_good, "pieces_bad": found.pieces_bad,
        "bad_files": found.bad_files,
    }));
    if good {
        return true;
    }
    let pieces = u64::from(found.pieces_good) + u64::from(found.pieces_bad);
    out.field("damaged", &format!("{} of {} pieces", units::count(found.pieces_bad.into()), units::count(pieces)));
    for file in found.bad_files.iter().take(LISTED_MAX) {
        out.field("", &printable(file));
    }
    if found.bad_files.len() > LISTED_MAX {
        out.field("", &format!("and {} more files (--json lists up to 1,000)", found.bad_files.len() - LISTED_MAX));
    }
    false
}
