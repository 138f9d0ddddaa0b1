//! `peas keygen`: a secret key in a file that only its owner may read.

use crate::args::KeygenArgs;
use crate::exit::{Failure, USAGE};
use crate::keys;
use crate::output::say;
use std::fs::OpenOptions;
use std::io::{self, Write};

pub fn run(args: KeygenArgs) -> Result<(), Failure> {
    let secret = keys::new_secret()?;
    let public = keys::hex(&keys::public_of(&secret));
    let path = &args.output;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(USAGE, format!("{}: exists already", path.display()), "a key is never overwritten: choose another name")
        }
        _ => Failure::file("create", path, source),
    })?;
    let text = format!("# Secret key of peas: whoever has it can sign as you.\n# Public key: {public}\n{}\n", keys::hex(&secret));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| Failure::file("write", path, source))?;
    say(&format!("secret key  {} (keep it to yourself)", path.display()));
    say(&format!("public key  {public}"));
    say("sign with   peas create FILE --sign KEYFILE");
    say("trust with  peas install PEA --trust-key PUBLICKEY");
    Ok(())
}
