//! In the place of TLS, for builds without the feature `https`: what such a build has to say to an https address.

use super::WebError;
use super::connection::{Single, Stream};

/// Nothing.
pub(crate) struct Tls;

impl Tls {
    /// There is nothing to trust.
    pub(crate) fn new(_: Vec<Vec<u8>>) -> Self {
        Self
    }

    /// # Errors
    /// Always.
    pub(super) async fn cover(&self, _: &str, _: Single) -> Result<Box<dyn Stream>, WebError> {
        Err(WebError::Address("this build of peas has no https"))
    }
}
