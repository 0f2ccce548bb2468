//! One VM: who it is, its roles, its vCPUs, whom it waits for and who waits for it, its interfaces and its disks.

use ratatui::{Frame, layout::Rect, text::Line, widgets::Paragraph};
use serde_json::Value;

use super::{
    feed::{Row, Share},
    order::{Wait, waits},
    plain::{bytes, percent, plain},
};

/// Characters of a name in a column.
const NAME: usize = 20;

/// Draws it; the most lines that it can be moved up by.
pub fn vm(frame: &mut Frame<'_>, area: Rect, row: Option<&Row>, rows: &[Row], scroll: usize) -> usize {
    let lines = row.map_or_else(|| vec!["it is no more: Esc goes back".to_owned()], |row| lines(row, rows));
    let most = lines.len().saturating_sub(usize::from(area.height));
    let lines: Vec<_> = lines.into_iter().skip(scroll.min(most)).map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines), area);
    most
}

fn lines(row: &Row, rows: &[Row]) -> Vec<String> {
    let told = |key: &str| row.told[key].as_str().filter(|t| !t.is_empty()).map_or_else(|| "-".to_owned(), plain);
    let rates = row.rates.as_deref();
    let of = |key: fn(&crate::history::Sample) -> Option<f64>| rates.and_then(key);
    let limit = row.told["shape"]["mem_bytes"].as_u64().map(|bytes| bytes as f64);
    let mut lines = vec![
        format!("{}  {}  {}  pid {}", row.title, row.state, told("hypervisor"), row.told["pid"]),
        format!("id {}   tenant {}", told("vm_id"), told("tenant")),
        format!("started {}   incarnation {}", told("started_at").get(..19).unwrap_or("-"), told("incarnation")),
        format!(
            "CPU {} %   waits {} %   memory {} of {}",
            percent(of(|r| r.cpu_percent)),
            percent(of(|r| r.cpu_delay_percent)),
            bytes(of(|r| r.memory_used_bytes.map(|b| b as f64))),
            bytes(limit)
        ),
        format!(
            "network in {}/s out {}/s   disk read {}/s write {}/s",
            bytes(of(|r| r.network_in_bytes_per_sec)),
            bytes(of(|r| r.network_out_bytes_per_sec)),
            bytes(of(|r| r.disk_read_bytes_per_sec)),
            bytes(of(|r| r.disk_write_bytes_per_sec))
        ),
        String::new(),
    ];
    lines.extend(side_by_side(&threads(row), &neighbours(row, rows)));
    lines.extend(interfaces(&row.told));
    lines.extend(disks(&row.told));
    lines
}

fn share(name: &str, share: &Share) -> String {
    let (cpu, wait) = (percent(share.rates.cpu_percent), percent(share.rates.cpu_delay_percent));
    format!("{name:<16}{cpu:>8}{wait:>8}")
}

fn threads(row: &Row) -> Vec<String> {
    let mut lines = vec![format!("{:<16}{:>8}{:>8}", "ROLE", "CPU%", "WAIT%")];
    lines.extend(row.roles.iter().map(|role| share(&role.of, role)));
    lines.push(format!("{:<16}{:>8}{:>8}", "VCPU", "CPU%", "WAIT%"));
    lines.extend(row.vcpus.iter().map(|vcpu| {
        let number = vcpu.number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        share(&format!("{number:>3} tid {}", vcpu.of), vcpu)
    }));
    if row.vcpus.is_empty() {
        lines.push("not told here, or not yet".to_owned());
    }
    lines
}

fn neighbours(row: &Row, rows: &[Row]) -> Vec<String> {
    let line = |wait: &Wait<'_>, name: &str| {
        format!("{:<20}{:>8}", name.chars().take(NAME).collect::<String>(), percent(Some(wait.percent)))
    };
    let (mine, all) = (waits(&[row], rows), waits(&rows.iter().collect::<Vec<_>>(), rows));
    let theirs = all.iter().filter(|wait| wait.by == row.vm_id && wait.victim.incarnation != row.incarnation);
    let mut lines = vec![format!("{:<20}{:>8}", "IT WAITS FOR", "WAIT%")];
    lines.extend(mine.iter().map(|wait| line(wait, &wait.title)));
    lines.push(format!("{:<20}{:>8}", "WHO WAITS FOR IT", "WAIT%"));
    lines.extend(theirs.map(|wait| line(wait, &wait.victim.title)));
    lines
}

fn side_by_side(left: &[String], right: &[String]) -> Vec<String> {
    let cell = |side: &[String], at: usize| side.get(at).cloned().unwrap_or_default();
    (0..left.len().max(right.len())).map(|at| format!("{:<36}{}", cell(left, at), cell(right, at))).collect()
}

fn interfaces(vm: &Value) -> Vec<String> {
    let each = vm["network"].as_array().into_iter().flatten().map(|interface| {
        let sum = |key: &str| {
            let classes = interface["classes"].as_array()?.iter();
            classes.filter_map(|class| class[key].as_str()?.parse::<u64>().ok()).reduce(|a, b| a + b)
        };
        let total = |key: &str| bytes(sum(key).map(|bytes| bytes as f64));
        let why = interface["why_not"].as_str().map(|why| format!("  not counted: {}", plain(why))).unwrap_or_default();
        let name = plain(interface["interface"].as_str().unwrap_or("?"));
        format!("interface {name:<16} in {:>6} out {:>6} in all{why}", total("receive_bytes"), total("transmit_bytes"))
    });
    each.collect()
}

fn disks(vm: &Value) -> Vec<String> {
    let each = vm["disks"].as_array().into_iter().flatten().map(|disk| {
        let size = |key: &str| bytes(disk[key].as_str().and_then(|bytes| bytes.parse::<u64>().ok()).map(|b| b as f64));
        let path = plain(disk["path"].as_str().unwrap_or("?"));
        format!("disk {:>6} of {:>6}  {path}", size("allocated_bytes"), size("capacity_bytes"))
    });
    each.collect()
}
