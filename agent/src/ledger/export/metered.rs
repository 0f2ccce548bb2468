//! Events of metering services: what a line adds to the one before, cut at whole hours, so that a service's sums over
//! an hour are those of `ledger rollup`. An id is the line's, with the metric, the class and, for an hour that the line
//! only ends, that hour: a line is always told by the same events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::input::Notes;
use super::super::rollup::{Amounts, Fold, NET_NAMES, Part, Period, Quantity, Sink, Whose};
use super::super::wire::When;
use super::super::{Kind, Line};
use super::cloudevent::source;
use super::{Event, ExportFormat};

const SECOND: u64 = 1_000_000_000;

/// The fold and what it gave for the line under way.
#[derive(Debug)]
pub(super) struct Metered {
    lago: bool,
    fold: Fold,
    given: Given,
}

/// By hour: where in it the stretch began, what was added, whose it is.
#[derive(Debug, Default)]
struct Given(BTreeMap<u64, (u64, Amounts, Whose)>);

impl Sink for Given {
    fn add(&mut self, line: Option<&Line>, _: u32, whose: &Whose, part: &Part, amounts: &Amounts) {
        if line.is_some() {
            let one = self.0.entry(part.bucket).or_insert_with(|| (part.begins, Amounts::default(), whose.clone()));
            one.1.merge(amounts);
        }
    }

    fn close(&mut self, _: u32, _: Whose) {}
}

impl Metered {
    pub(super) fn new(format: ExportFormat) -> Self {
        Self { lago: format == ExportFormat::Lago, fold: Fold::new(Period::Hour), given: Given::default() }
    }

    /// Another host follows; what is open there was told up to its last line.
    pub(super) fn finish(&mut self, notes: &mut Notes) {
        std::mem::replace(&mut self.fold, Fold::new(Period::Hour)).finish(&mut self.given, notes);
    }

    pub(super) fn accept(&mut self, line: &Line, notes: &mut Notes) -> Vec<Event> {
        if line.fact.kind == Kind::Correction {
            return Vec::new();
        }
        self.fold.accept(line, &mut self.given, notes);
        let given = std::mem::take(&mut self.given).0;
        let last = given.keys().next_back().copied();
        let mut events = Vec::new();
        for (hour, (begins, amounts, whose)) in given {
            let mark = if Some(hour) == last { String::new() } else { format!("@{}", hour / SECOND) };
            let about = About { line, whose: &whose, begins, mark: &mark };
            for (class, numbers) in groups(&amounts) {
                if self.lago {
                    events.extend(numbers.into_iter().map(|(name, number)| about.lago(class, name, number)));
                } else {
                    events.push(about.openmeter(class, &numbers));
                }
            }
        }
        events
    }
}

/// What is told together: everything but traffic, then each class of traffic; nothing that did not grow.
fn groups(amounts: &Amounts) -> Vec<(&str, Vec<(&'static str, u128)>)> {
    let all = Quantity::ALL.iter().filter_map(|what| Some((what.as_str(), amounts.get(*what)?)));
    let mut groups = vec![("", all.collect::<Vec<_>>())];
    for (class, net) in amounts.net() {
        groups.push((class, NET_NAMES.into_iter().zip(*net).collect()));
    }
    for (_, numbers) in &mut groups {
        numbers.retain(|(_, number)| *number > 0);
    }
    groups.retain(|(_, numbers)| !numbers.is_empty());
    groups
}

/// What the events of a line in an hour have in common.
struct About<'a> {
    line: &'a Line,
    whose: &'a Whose,
    begins: u64,
    mark: &'a str,
}

impl About<'_> {
    /// Who is billed: the tenant, as long as none is known the VM, else the stored thing.
    fn subject(&self) -> &str {
        let Whose { vm_id, storage_id, tenant } = self.whose;
        [tenant, vm_id].into_iter().find(|text| !text.is_empty()).unwrap_or(storage_id)
    }

    fn properties(&self, class: &str) -> Map<String, Value> {
        let Whose { vm_id, storage_id, tenant } = self.whose;
        let texts = [("host", self.line.host.as_str()), ("vm_id", vm_id), ("storage_id", storage_id)];
        let texts = texts.into_iter().chain([("tenant", tenant.as_str()), ("class", class)]);
        texts.filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text.into())).collect()
    }

    /// Numbers are decimal strings, which OpenMeter takes and does not round.
    fn openmeter(&self, class: &str, numbers: &[(&'static str, u128)]) -> Event {
        let (kind, metric) = if class.is_empty() { ("kvmeter.usage", "usage") } else { ("kvmeter.network", "network") };
        let id = self.id(metric, class);
        let mut data = self.properties(class);
        data.extend(numbers.iter().map(|(name, number)| ((*name).to_owned(), number.to_string().into())));
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": source(&self.line.host),
            "type": kind,
            "subject": self.subject(),
            "time": When(self.begins),
            "datacontenttype": "application/json",
            "data": data,
        });
        Event { id, json: event.to_string().into_bytes() }
    }

    fn lago(&self, class: &str, name: &str, number: u128) -> Event {
        let id = self.id(name, class);
        let mut properties = self.properties(class);
        properties.insert("value".to_owned(), number.to_string().into());
        let event = json!({
            "transaction_id": id,
            "external_subscription_id": self.subject(),
            "code": format!("kvmeter_{name}"),
            "timestamp": self.begins / SECOND,
            "properties": properties,
        });
        Event { id, json: event.to_string().into_bytes() }
    }

    fn id(&self, metric: &str, class: &str) -> String {
        let slash = if class.is_empty() { "" } else { "/" };
        format!("{}/{metric}{slash}{class}{}", self.line.id, self.mark)
    }
}
