//! What stands on an interface's hooks for programs, by the kernel's own word: the packets' ways in and out.

use anyhow::{Context as _, Result};

use super::{
    link::Link,
    raw::{self, TCX_EGRESS, TCX_INGRESS},
    rtnetlink::{self, Body, GET_DISCIPLINE},
};

/// Where the discipline `clsact` hangs, whose filters are the hooks of kernels before 6.6.
const CLSACT: u32 = 0xffff_fff1;
/// `NLM_F_ECHO`: the asker gets the answer, too.
const ECHO: u16 = 8;
/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;
/// `TCA_KIND`.
const KIND: u16 = 1;

/// What is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Programs on tcx, on the way in and out; none where the kernel has no tcx.
    pub tcx: [u32; 2],
    /// Whether the interface has a discipline for filters, `clsact` or `ingress`.
    pub filters: bool,
}

impl Hooks {
    /// What an interface that is counted has on this kernel, where nobody else has anything on it.
    #[must_use]
    pub fn counted() -> Self {
        // The loopback device's index is 1 everywhere; kernels without tcx do not know the question.
        let unknown = |error: std::io::Error| error.raw_os_error() == Some(libc::EINVAL);
        if raw::programs_on(1, TCX_INGRESS).is_err_and(unknown) {
            Self { filters: true, ..Self::default() }
        } else {
            Self { tcx: [1, 1], ..Self::default() }
        }
    }
}

/// Asks for them.
pub fn hooks(link: &Link) -> Result<Hooks> {
    link.namespace().inside(|| {
        let tcx = |hook| match raw::programs_on(link.index(), hook) {
            // Before 6.6, and where nobody ever came.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(0),
            other => other.context("BPF_PROG_QUERY"),
        };
        let filters = match rtnetlink::ask(GET_DISCIPLINE, ECHO, &Body::discipline(link.index(), CLSACT)) {
            // The place outlives it, with a discipline of the kernel's own that is not told.
            Ok(answer) => {
                let kind = rtnetlink::attribute(&answer, HEADER, KIND).unwrap_or_default();
                kind.starts_with(b"clsact") || kind.starts_with(b"ingress")
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error).context("RTM_GETQDISC"),
        };
        Ok(Hooks { tcx: [tcx(TCX_INGRESS)?, tcx(TCX_EGRESS)?], filters })
    })
}
