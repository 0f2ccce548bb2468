//! Compile-time proof that a type has the offsets its neighbours across the kernel border rely on.

/// Asserts a type's size and the byte offset of each field, and that the fields fill it without padding.
///
/// Each line is `field: type => offset`. A wrong number fails the build.
#[macro_export]
macro_rules! assert_layout {
    ($ty:ty, size $size:literal, { $($field:ident : $fty:ty => $off:literal),+ $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$ty>() == $size, "size changed");
            let mut end = 0;
            $(
                assert!(core::mem::offset_of!($ty, $field) == $off, "field moved");
                assert!($off == end, "padding before a field");
                end = $off + core::mem::size_of::<$fty>();
            )+
            assert!(end == $size, "padding at the end");
        };
    };
}
