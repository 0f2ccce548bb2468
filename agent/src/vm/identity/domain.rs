//! libvirt's XML of a domain: its state file (`<domstatus pid='…'>`) and its definition (`<domain>`), with the metadata
//! that OpenStack's Nova and libosinfo put there.
//!
//! Sources: libvirt's format of a domain (formatdomain), Nova's `LibvirtConfigGuestMetaNova*`. A document type is
//! refused, so nothing expands; nodes are bounded.

use roxmltree::{Document, Node, ParsingOptions};

use super::{Facts, text, uuid, vcpus};
use crate::vm::Owner;

/// Nodes of a document; a domain with a hundred devices has some 3,000.
const MAX_NODES: u32 = 200_000;
/// The namespaces of Nova's metadata begin so; a version follows.
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/";
/// libosinfo's.
const OSINFO: &str = "http://libosinfo.org/xmlns/libvirt/domain/";

/// Why a document tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    Encoding(#[source] std::str::Utf8Error),
    /// It is no well-formed XML, has a document type, or too many nodes.
    #[error("it is no XML that is read here")]
    Xml(#[source] roxmltree::Error),
    /// It is about something else.
    #[error("it describes no domain")]
    NoDomain,
}

/// Reads a document.
///
/// # Errors
/// [`DomainError`].
pub fn parse(raw: &[u8]) -> Result<Facts, DomainError> {
    let xml = std::str::from_utf8(raw).map_err(DomainError::Encoding)?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options).map_err(DomainError::Xml)?;
    let root = document.root_element();
    let state = root.has_tag_name("domstatus");
    let domain = if state { child(root, "domain") } else { Some(root).filter(|root| root.has_tag_name("domain")) };
    let domain = domain.ok_or(DomainError::NoDomain)?;
    let memory = child(domain, "currentMemory").or_else(|| child(domain, "memory"));
    Ok(Facts {
        pid: root.attribute("pid").filter(|_| state).and_then(|pid| pid.parse().ok()),
        name: child(domain, "name").map(words).and_then(|name| text(name.as_bytes())),
        uuid: child(domain, "uuid").and_then(|node| uuid(words(node).as_bytes())),
        vcpus: child(domain, "vcpu").and_then(plugged),
        mem_bytes: memory.and_then(amount),
        owner: owner(domain),
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The text directly inside a node, without the white space around it.
fn words(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

/// `<vcpu current='2'>4</vcpu>`: two of at most four.
fn plugged(node: Node<'_, '_>) -> Option<u32> {
    vcpus(node.attribute("current").map_or_else(|| words(node), str::to_owned).as_bytes())
}

/// `<memory unit='KiB'>1024</memory>`, the unit being KiB where none is given.
fn amount(node: Node<'_, '_>) -> Option<u64> {
    let unit = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    words(node).parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// The project of OpenStack is the tenant, by its id; names are labels, because they can be changed.
fn owner(domain: Node<'_, '_>) -> Owner {
    let mut labels = vec![("libvirt.title", child(domain, "title").map(words))];
    let mut tenant = None;
    for entry in child(domain, "metadata").into_iter().flat_map(|metadata| metadata.children()) {
        let space = entry.tag_name().namespace().unwrap_or_default();
        if space.starts_with(NOVA) && entry.tag_name().name() == "instance" {
            let owner = child(entry, "owner");
            let project = owner.and_then(|owner| child(owner, "project"));
            let user = owner.and_then(|owner| child(owner, "user"));
            let attribute =
                |node: Option<Node<'_, '_>>, name| node.and_then(|node| node.attribute(name)).map(str::to_owned);
            tenant = attribute(project, "uuid").or_else(|| project.map(words));
            labels.extend([
                ("openstack.project", project.map(words)),
                ("openstack.user", user.map(words)),
                ("openstack.name", child(entry, "name").map(words)),
                ("openstack.flavor", attribute(child(entry, "flavor"), "name")),
                ("openstack.image", attribute(child(entry, "root"), "uuid")),
            ]);
        } else if space.starts_with(OSINFO) {
            let os = child(entry, "os").and_then(|os| os.attribute("id"));
            labels.push(("libosinfo.os", os.map(str::to_owned)));
        }
    }
    let told = labels.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?)));
    Owner::heard(tenant.as_deref(), told.filter(|(_, value)| !value.is_empty()))
}

/// A file of libvirt's is named after its domain; this is the name, if it can be one.
#[must_use]
pub fn file_stem(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let fits = !name.is_empty() && name.len() <= 250 && !name.contains(['/', '\0']) && !name.starts_with('.');
    // A label would hide what was wrong with it.
    (fits && text(name.as_bytes()).is_some()).then_some(name)
}

#[cfg(test)]
mod tests;
