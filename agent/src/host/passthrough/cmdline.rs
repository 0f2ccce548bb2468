//! Network devices that only a VMM's command line tells of: QEMU, cloud-hypervisor and crosvm.

/// What the arguments say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Names of vhost-user network devices.
    pub(super) vhost_user: Vec<String>,
    /// Paths of vdpa devices that are disks.
    pub(super) vdpa_disks: Vec<String>,
}

/// Reads the arguments, `argv[0]` included.
pub(super) fn read(args: &[Vec<u8>]) -> Line {
    let mut line = Line::default();
    let args: Vec<String> = args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    // `--net=value` is `--net value`.
    let split = |arg: &String| match arg.split_once('=') {
        Some((option, value)) if option.starts_with("--") => vec![option.to_owned(), value.to_owned()],
        _ => vec![arg.clone()],
    };
    let args: Vec<String> = args.iter().flat_map(split).collect();
    let mut at = 0;
    while let Some(option) = args.get(at) {
        at += 1;
        match option.trim_start_matches('-') {
            "netdev" | "nic" if option.starts_with('-') => {
                let pairs = pairs(args.get(at).map_or("", String::as_str), "type");
                if get(&pairs, "type") == Some("vhost-user") {
                    let name = get(&pairs, "id").or(get(&pairs, "chardev")).unwrap_or("vhost-user");
                    line.vhost_user.push(name.to_owned());
                }
            }
            "blockdev" if option.starts_with('-') => {
                let pairs = pairs(args.get(at).map_or("", String::as_str), "driver");
                if get(&pairs, "driver") == Some("virtio-blk-vhost-vdpa") {
                    line.vdpa_disks.extend(get(&pairs, "path").map(str::to_owned));
                }
            }
            // cloud-hypervisor takes several values behind one option.
            "net" if option.starts_with("--") => {
                while let Some(value) = args.get(at).filter(|value| !value.starts_with('-')) {
                    at += 1;
                    let pairs = pairs(value, "tap");
                    if matches!(get(&pairs, "vhost_user"), Some("true" | "on")) {
                        let name = get(&pairs, "id").map_or_else(|| base(get(&pairs, "socket")), str::to_owned);
                        line.vhost_user.push(name);
                    }
                }
            }
            "vhost-user-net" if option.starts_with("--") => {
                line.vhost_user.push(base(args.get(at).map(|value| value.split(',').next().unwrap_or(value))));
            }
            "vhost-user" if option.starts_with("--") => {
                let pairs = pairs(args.get(at).map_or("", String::as_str), "type");
                if get(&pairs, "type") == Some("net") {
                    line.vhost_user.push(base(get(&pairs, "socket")));
                }
            }
            _ => {}
        }
    }
    line.vhost_user.sort();
    line.vhost_user.dedup();
    line
}

/// The last part of a socket's path.
fn base(path: Option<&str>) -> String {
    let name = path.and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
    name.unwrap_or("vhost-user").to_owned()
}

/// `first,key=value,…`, or the JSON object that libvirt writes; `implied` is the key of the first part.
fn pairs(value: &str, implied: &str) -> Vec<(String, String)> {
    if value.starts_with('{') {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(value).unwrap_or_default();
        let text = |value: serde_json::Value| value.as_str().map(str::to_owned);
        return object.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect();
    }
    // A comma inside a value is written twice; none of the words looked for has one.
    let parts = value.split(',').enumerate();
    let pair = |(at, part): (usize, &str)| match part.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None if at == 0 => (implied.to_owned(), part.to_owned()),
        None => (part.to_owned(), String::new()),
    };
    parts.map(pair).collect()
}

fn get<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
}
