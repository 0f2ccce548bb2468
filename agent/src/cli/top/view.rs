//! What the person at the keys has chosen. Pure: keys in, choice out.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{feed::Row, order::Sort};

/// What fills the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// All VMs.
    #[default]
    List,
    /// One VM, by its life.
    Vm(String),
    /// Who waits for whom.
    Waits,
    /// The keys.
    Help,
}

/// All that was chosen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What fills the screen.
    pub place: Place,
    /// What the list is sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// Only rows with this in them.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    /// The life of the VM under the bar.
    pub selected: Option<String>,
    /// Lines that a long screen is moved up by.
    pub scroll: usize,
    /// The most that makes sense of what was drawn.
    pub most_scroll: usize,
    /// Nothing new is shown.
    pub frozen: bool,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// On.
    Stay,
    /// Enough seen.
    Quit,
}

/// The longest filter.
const MOST_FILTER: usize = 64;
/// Rows of a page.
const PAGE: isize = 10;

impl View {
    /// Where the bar is among these rows; the first where it is not among them.
    #[must_use]
    pub fn bar(&self, shown: &[&Row]) -> usize {
        let selected = self.selected.as_deref();
        shown.iter().position(|row| Some(row.incarnation.as_str()) == selected).unwrap_or(0)
    }

    /// A key was pressed while these rows were shown.
    pub fn key(&mut self, key: KeyEvent, shown: &[&Row]) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c')) { Next::Quit } else { Next::Stay };
        }
        if self.typing {
            self.typed(key.code);
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => match self.place {
                Place::List if key.code == KeyCode::Esc => self.filter.clear(),
                Place::List => return Next::Quit,
                _ => self.go(Place::List),
            },
            KeyCode::Backspace => self.go(Place::List),
            KeyCode::Enter if self.place == Place::List => {
                if let Some(row) = shown.get(self.bar(shown)) {
                    self.go(Place::Vm(row.incarnation.clone()));
                }
            }
            KeyCode::Char('/') => {
                self.go(Place::List);
                self.typing = true;
            }
            KeyCode::Char('w') => self.go(Place::Waits),
            KeyCode::Char('?' | 'h') => self.go(Place::Help),
            KeyCode::Char(' ') => self.frozen = !self.frozen,
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char(letter) if sort_of(letter).is_some() => self.sort = sort_of(letter).unwrap_or_default(),
            KeyCode::Right => self.sort = self.sort.step(1),
            KeyCode::Left => self.sort = self.sort.step(-1),
            code => self.moved(code, shown),
        }
        Next::Stay
    }

    fn go(&mut self, place: Place) {
        (self.place, self.scroll) = (place, 0);
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !c.is_control() && self.filter.len() < MOST_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn moved(&mut self, code: KeyCode, shown: &[&Row]) {
        let by = match code {
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::PageDown => PAGE,
            KeyCode::PageUp => -PAGE,
            KeyCode::Home => isize::MIN / 2,
            KeyCode::End => isize::MAX / 2,
            _ => return,
        };
        if self.place == Place::List {
            let at = self.bar(shown).saturating_add_signed(by).min(shown.len().saturating_sub(1));
            self.selected = shown.get(at).map(|row| row.incarnation.clone());
        } else {
            self.scroll = self.scroll.saturating_add_signed(by).min(self.most_scroll);
        }
    }
}

/// The sort key of a letter.
fn sort_of(letter: char) -> Option<Sort> {
    Some(match letter {
        'c' => Sort::Cpu,
        'd' => Sort::Delay,
        'm' => Sort::Memory,
        'n' => Sort::Network,
        'i' => Sort::Disk,
        'v' => Sort::Name,
        _ => return None,
    })
}

/// The keys, for people.
pub const KEYS: [(&str, &str); 12] = [
    ("up down, j k", "move; PgUp PgDn Home End likewise"),
    ("Enter", "one VM: roles, vCPUs, whom it waits for, interfaces, disks"),
    ("w", "who waits for whom"),
    ("c d m n i v", "sort by CPU, delay, memory, network, I/O of disks, name"),
    ("left right", "sort by the next column"),
    ("r", "the other way round"),
    ("/", "only VMs with this in name, id, tenant or state; Esc shows all"),
    ("space", "hold the picture still, and go on"),
    ("?", "these keys"),
    ("Esc", "back to the list"),
    ("q", "back to the list, and from there out"),
    ("Ctrl-C", "out"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, keys: &str, shown: &[&Row]) -> Next {
        let code = |c| match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '+' => KeyCode::Down,
            c => KeyCode::Char(c),
        };
        keys.chars().fold(Next::Stay, |_, c| view.key(KeyEvent::new(code(c), KeyModifiers::NONE), shown))
    }

    fn rows() -> Vec<Row> {
        ["a", "b", "c"].map(|name| Row { incarnation: name.into(), title: name.into(), ..Row::default() }).into()
    }

    #[test]
    fn the_bar_stays_on_its_vm_when_the_order_changes() {
        let (rows, mut view) = (rows(), View::default());
        let shown: Vec<&Row> = rows.iter().collect();
        press(&mut view, "+", &shown);
        assert_eq!(view.bar(&shown), 1);
        let turned: Vec<&Row> = rows.iter().rev().skip(1).collect();
        assert_eq!(view.bar(&turned), 0, "b is first now");
        press(&mut view, "++++", &shown);
        assert_eq!(view.bar(&shown), 2, "it does not leave the list");
    }

    #[test]
    fn q_goes_back_before_it_goes_out_and_is_a_letter_while_a_filter_is_typed() {
        let (rows, mut view) = (rows(), View::default());
        let shown: Vec<&Row> = rows.iter().collect();
        assert_eq!(press(&mut view, "/qc", &shown), Next::Stay);
        assert_eq!((view.filter.as_str(), view.sort), ("qc", Sort::Cpu));
        assert_eq!(press(&mut view, "\u{1b}\n", &shown), Next::Stay);
        assert_eq!((view.place.clone(), view.filter.as_str()), (Place::Vm("a".into()), ""));
        assert_eq!(press(&mut view, "q", &shown), Next::Stay);
        assert_eq!(press(&mut view, "q", &shown), Next::Quit);
        let out = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(View { typing: true, ..View::default() }.key(out, &shown), Next::Quit);
    }

    #[test]
    fn every_letter_of_the_help_does_something() {
        for letter in "cdmniv".chars() {
            assert!(sort_of(letter).is_some(), "{letter}");
        }
    }
}
