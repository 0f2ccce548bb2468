//! The full screen: a thread asks the agent, this one draws and takes keys. An agent that does not answer is told of on
//! the screen, and after a while ends it.

use std::{
    fs::File,
    io::{self, stdout},
    os::fd::AsFd as _,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::event::{self, Event, KeyEventKind},
};
use serde_json::Value;

use super::{
    Top, ask, draw,
    feed::{Feed, Row},
    order::shown,
    screen::Screen,
    view::{Next, View},
};
use crate::cli::Outcome;

/// How long a key may take to show.
const TURN: Duration = Duration::from_millis(100);
/// How long an agent may be away: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = anyhow::Result<Value>;

/// Takes the terminal, and gives it back before anything is said.
pub(super) fn run(socket: &Path, top: &Top) -> anyhow::Result<Outcome> {
    // An agent that is not there is told of before the terminal is touched.
    let first = ask(socket)?;
    let signals = signals().context("signals cannot be received")?;
    let (answers, more) = channel();
    let (stop, stopped) = channel::<()>();
    let (socket, delay) = (socket.to_owned(), top.delay);
    std::thread::spawn(move || keep_asking(&socket, delay, &answers, &stopped));
    let said = Arc::new(Mutex::new(String::new()));
    let before = hold_back_panics(Arc::clone(&said));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        let tty = File::from(stdout().as_fd().try_clone_to_owned()?);
        let screen = Screen::take(tty).context("the terminal cannot be taken")?;
        let outcome = show(&first, top, &more, &signals);
        drop(screen);
        outcome
    }));
    panic::set_hook(before);
    drop(stop);
    match ended {
        Ok(outcome) => outcome.map(|()| Outcome::Done),
        Err(_) => {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            bail!("top failed, which is a bug, please report it: {said}")
        }
    }
}

/// A panic's words would be lost on the other screen: they are kept until it is left.
fn hold_back_panics(said: Arc<Mutex<String>>) -> Box<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        *said.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string().replace('\n', " ");
    }));
    before
}

/// What ends a program comes as something to read, so that the terminal is given back first. For all threads that are
/// started from here on.
fn signals() -> io::Result<SignalFd> {
    let mut ending = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().for_each(|s| ending.add(s));
    ending.thread_block()?;
    Ok(SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn keep_asking(socket: &Path, delay: Duration, answers: &Sender<Answer>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(delay) == Err(RecvTimeoutError::Timeout) {
        if answers.send(ask(socket)).is_err() {
            return;
        }
    }
}

/// What was seen last.
struct Seen {
    feed: Feed,
    rows: Vec<Row>,
    /// Since when the agent is away, and why.
    away: Option<(Instant, String)>,
}

impl Seen {
    /// Takes all that has come; whether there was any.
    fn take(&mut self, more: &Receiver<Answer>, frozen: bool) -> anyhow::Result<bool> {
        let mut any = false;
        for answer in more.try_iter() {
            any = true;
            match answer {
                Ok(answer) => {
                    self.away = None;
                    let rows = self.feed.rows(&answer);
                    if !frozen {
                        self.rows = rows;
                    }
                }
                Err(error) => {
                    let since = self.away.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                    self.away = Some((since, format!("{error:#}")));
                    if since.elapsed() >= PATIENCE {
                        return Err(error.context(format!("the agent has been away for {PATIENCE:?}")));
                    }
                }
            }
        }
        Ok(any)
    }
}

fn show(first: &Value, top: &Top, more: &Receiver<Answer>, signals: &SignalFd) -> anyhow::Result<()> {
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout())).context("the terminal has no size")?;
    let mut seen = Seen { feed: Feed::default(), rows: Vec::new(), away: None };
    seen.rows = seen.feed.rows(first);
    let mut view = View { sort: top.sort, filter: top.filter.clone(), ..View::default() };
    let mut stale = true;
    loop {
        if stale {
            let shown = shown(&seen.rows, &view.filter, view.sort, view.reverse);
            let away = seen.away.as_ref().map(|(_, why)| why.as_str());
            let mut most = 0;
            terminal.draw(|frame| most = draw::all(frame, &view, &seen.rows, &shown, away))?;
            view.most_scroll = most;
        }
        stale = false;
        if event::poll(TURN).context("keys cannot be read")? {
            stale = true;
            match event::read().context("keys cannot be read")? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let shown = shown(&seen.rows, &view.filter, view.sort, view.reverse);
                    if view.key(key, &shown) == Next::Quit {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        if signals.read_signal().map_err(|error| anyhow!(error))?.is_some() {
            return Ok(());
        }
        stale |= seen.take(more, view.frozen)?;
    }
}
