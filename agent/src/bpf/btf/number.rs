//! Numbers of types: what a program names a function or a struct of the kernel's by.

use super::{
    Btf,
    section::{Type, kind},
};

impl Btf<'_> {
    /// The number of the struct of that name, if there is one such.
    #[must_use]
    pub fn structure(&self, name: &str) -> Option<u32> {
        let ids = self.structs.get(name.as_bytes())?;
        let [id] = ids[..] else { return None };
        Some(id)
    }

    /// The number of the kernel's function of that name, if it is described and there is one such.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        let is = |at: &usize| {
            Type::read(self.data, *at).is_ok_and(|ty| ty.kind == kind::FUNC && self.is_named(ty.name, name.as_bytes()))
        };
        let mut found = (0_u32..).zip(&self.types).filter(|(_, at)| **at != usize::MAX && is(at));
        let (id, _) = found.next()?;
        found.next().is_none().then_some(id)
    }
}
