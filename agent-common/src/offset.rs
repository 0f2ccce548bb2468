//! Places of kernel fields that stand in the code itself: on the way of every switch, a load from the table of places
//! costs as much as the load of the field.
//!
//! In the object such a place is an addition of [`MARK`] plus the field's number; the agent puts the place there before
//! it loads the object.

/// What no program adds by chance.
pub const MARK: i32 = 0x6b76_6d00;
/// `BPF_ALU64 | BPF_ADD | BPF_K`: the addition.
pub const ADD: u8 = 0x07;

macro_rules! marks {
    ($($name:ident = $number:literal),+ $(,)?) => {
        $(
            #[doc = concat!("Stands for the place that is named ", stringify!($name), ".")]
            pub const $name: i32 = MARK + $number;
        )+
        /// Each with the name of its place.
        pub const ALL: &[(&str, i32)] = &[$((stringify!($name), $name)),+];
    };
}

marks!(TASK_PID = 1, TASK_RUNTIME = 2, TASK_RUN_DELAY = 3, TASK_STATE = 4);
