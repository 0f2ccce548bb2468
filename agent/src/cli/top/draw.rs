//! The list, who waits for whom, and the keys; 80 columns by 24 lines are enough.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Paragraph, Row as Cells, Table, TableState},
};

use super::{
    feed::Row,
    one,
    order::{Sort, waits},
    plain::{percent, plain},
    view::{KEYS, Place, View},
};

/// From this width on there is room for the tenant.
const WIDE: u16 = 104;

/// Draws what was chosen; the most lines that it can be moved up by.
pub fn all(frame: &mut Frame<'_>, view: &View, rows: &[Row], shown: &[&Row], away: Option<&str>) -> usize {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame
        .render_widget(Paragraph::new(title(view, rows, shown)).style(Style::new().add_modifier(Modifier::BOLD)), head);
    let most_scroll = match &view.place {
        Place::List => {
            list(frame, body, view, shown);
            0
        }
        Place::Waits => stolen(frame, body, view, shown, rows),
        Place::Help => {
            help(frame, body);
            0
        }
        Place::Vm(life) => one::vm(frame, body, rows.iter().find(|row| row.incarnation == *life), rows, view.scroll),
    };
    let foot_style = Style::new().add_modifier(if away.is_some() { Modifier::REVERSED } else { Modifier::DIM });
    frame.render_widget(Paragraph::new(bottom(view, away)).style(foot_style), foot);
    most_scroll
}

fn title(view: &View, rows: &[Row], shown: &[&Row]) -> String {
    let of = |state: &str| rows.iter().filter(|row| row.state == state).count();
    let cpu: f64 = rows.iter().filter_map(|row| row.rates.as_deref()?.cpu_percent).sum();
    let mut title = format!("kvmeter top  {} VMs", rows.len());
    for state in ["running", "paused", "stopped"] {
        if of(state) > 0 {
            title += &format!("  {} {state}", of(state));
        }
    }
    title += &format!("  CPU {}%", percent(Some(cpu)));
    if !view.filter.is_empty() {
        title += &format!("  {} shown", shown.len());
    }
    if view.frozen { title + "  HELD STILL" } else { title }
}

fn bottom(view: &View, away: Option<&str>) -> String {
    match (away, view.typing, &view.place) {
        (Some(why), _, _) => format!("agent away, asking again: {}", plain(why)),
        (None, true, _) => format!("filter: {}_", plain(&view.filter)),
        (None, false, Place::List) if !view.filter.is_empty() => {
            format!("filter: {}   Esc shows all   / changes it   ? keys   q out", plain(&view.filter))
        }
        (None, false, Place::List) => {
            "Enter one VM   w who waits   / filter   c d m n i v sort   ? keys   q out".into()
        }
        (None, false, _) => "Esc back   up down move   ? keys   q back".into(),
    }
}

const HEAD: [(&str, Option<Sort>); 10] = [
    ("VM", Some(Sort::Name)),
    ("STATE", None),
    ("CPUS", None),
    ("CPU%", Some(Sort::Cpu)),
    ("WAIT%", Some(Sort::Delay)),
    ("MEM", Some(Sort::Memory)),
    ("NETIN/s", Some(Sort::Network)),
    ("OUT/s", None),
    ("READ/s", Some(Sort::Disk)),
    ("WRITE/s", None),
];

fn list(frame: &mut Frame<'_>, area: Rect, view: &View, shown: &[&Row]) {
    let wide = area.width >= WIDE;
    let sorted = |sort: Option<Sort>| sort == Some(view.sort);
    let arrow = if view.reverse ^ (view.sort == Sort::Name) { '^' } else { 'v' };
    let mut head: Vec<Line<'_>> = HEAD
        .iter()
        .enumerate()
        .map(|(at, (text, sort))| {
            let text = if sorted(*sort) { format!("{text}{arrow}") } else { (*text).to_owned() };
            if at < 2 { Line::raw(text) } else { Line::raw(text).right_aligned() }
        })
        .collect();
    let mut widths = vec![Constraint::Min(13), Constraint::Length(7), Constraint::Length(4)];
    widths.extend([6, 6, 5, 8, 6, 7, 7].map(Constraint::Length));
    if wide {
        head.insert(1, Line::raw("TENANT"));
        widths.insert(1, Constraint::Length(16));
    }
    let lines = shown.iter().map(|row| {
        let style = if row.state == "running" { Style::new() } else { Style::new().add_modifier(Modifier::DIM) };
        Cells::new(cells(row, wide)).style(style)
    });
    let table = Table::new(lines, widths)
        .column_spacing(1)
        .header(Cells::new(head).style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!shown.is_empty()).then(|| view.bar(shown)));
    frame.render_stateful_widget(table, area, &mut state);
    if shown.is_empty() {
        let [_, rest] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
        let why = if view.filter.is_empty() { "no VMs" } else { "no VM has that in its name, id, tenant or state" };
        frame.render_widget(Paragraph::new(why), rest);
    }
}

fn cells(row: &Row, wide: bool) -> Vec<Line<'static>> {
    let mut cells = vec![Line::raw(row.title.clone()), Line::raw(row.state.clone())];
    if wide {
        cells.insert(1, Line::raw(row.tenant.clone()));
    }
    cells.extend(row.numbers().map(|number| Line::raw(number).right_aligned()));
    cells
}

fn stolen(frame: &mut Frame<'_>, area: Rect, view: &View, shown: &[&Row], rows: &[Row]) -> usize {
    let waits = waits(shown, rows);
    let told = rows.iter().any(|row| !row.waits.is_empty());
    if waits.is_empty() {
        let why = if told { "nobody waits for anybody" } else { "who runs instead is not told here, or not yet" };
        frame.render_widget(Paragraph::new(why), area);
        return 0;
    }
    let lines = waits.iter().skip(view.scroll.min(waits.len() - 1)).map(|wait| {
        let percent = Line::raw(percent(Some(wait.percent))).right_aligned();
        Cells::new([Line::raw(wait.victim.title.clone()), percent, Line::raw(wait.title.clone())])
    });
    let head = [Line::raw("WHO WAITS"), Line::raw("WAIT%").right_aligned(), Line::raw("FOR")];
    let widths = [Constraint::Fill(1), Constraint::Length(7), Constraint::Fill(1)];
    let head = Cells::new(head).style(Style::new().add_modifier(Modifier::UNDERLINED));
    frame.render_widget(Table::new(lines, widths).column_spacing(2).header(head), area);
    waits.len().saturating_sub(usize::from(area.height.saturating_sub(1)))
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let keys = KEYS.iter().map(|(key, does)| Line::raw(format!("{key:<14} {does}")));
    let columns = [
        "",
        "CPU%, WAIT%    100 is one core busy, one thread waiting all the time",
        "MEM            resident, huge pages included",
        "NETIN, OUT     as the guest sees them",
        "-              not measured, or not yet; `kvmeter doctor` says why",
    ];
    let lines: Vec<_> = keys.chain(columns.into_iter().map(Line::raw)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}
