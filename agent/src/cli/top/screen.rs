//! The terminal while `top` has it: raw, on its other screen, without a cursor; as it was once this is dropped, whatever
//! ends it, a panic too.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use nix::sys::termios::{self, SetArg, Termios};

/// The other screen, cleared; no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l";
/// Plain letters, a cursor, the screen of before.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// A terminal taken; given back when dropped.
pub struct Screen<T: AsFd + Write> {
    tty: T,
    before: Termios,
}

impl<T: AsFd + Write> Screen<T> {
    /// Takes it.
    ///
    /// # Errors
    /// It is no terminal, or gone.
    pub fn take(tty: T) -> io::Result<Self> {
        let before = termios::tcgetattr(&tty)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&tty, SetArg::TCSADRAIN, &raw)?;
        // From here on it is given back.
        let mut screen = Self { tty, before };
        screen.tty.write_all(ENTER)?;
        screen.tty.flush()?;
        Ok(screen)
    }
}

impl<T: AsFd + Write> Drop for Screen<T> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.tty.write_all(LEAVE).and_then(|()| self.tty.flush());
        let _ = termios::tcsetattr(&self.tty, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        pty::openpty,
        sys::termios::{LocalFlags, tcgetattr},
    };
    use std::{fs::File, io::Read as _};

    #[test]
    fn a_panic_gives_the_terminal_back_as_it_was() {
        let pair = openpty(None, None).unwrap();
        let before = tcgetattr(&pair.slave).unwrap();
        let tty = File::from(pair.slave.try_clone().unwrap());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _screen = Screen::take(tty).unwrap();
            let raw = tcgetattr(&pair.slave).unwrap();
            assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
            std::panic::resume_unwind(Box::new("as a panic does"));
        }));
        assert!(ended.is_err());
        assert_eq!(tcgetattr(&pair.slave).unwrap(), before);
        let mut sent = vec![0; ENTER.len() + LEAVE.len()];
        File::from(pair.master).read_exact(&mut sent).unwrap();
        assert_eq!(sent, [ENTER, LEAVE].concat());
    }

    #[test]
    fn what_is_no_terminal_is_not_taken() {
        assert!(Screen::take(File::open("/dev/null").unwrap()).is_err());
    }
}
