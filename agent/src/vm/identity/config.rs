//! VMMs' own configuration files: QEMU's of `-readconfig`, Firecracker's and crosvm's in JSON.
//!
//! Sources: `qemu_config_foreach` (util/qemu-config.c), Firecracker's `VmmConfig`, crosvm's book. Each says name and
//! shape; whoever wrote the file may own the VM, so it never says whose the VM is.

use serde_json::Value;

use super::{ConfigFormat, Facts, MAX_VCPUS, size, text, vcpus};
use crate::units::Bytes;

/// Why a file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON.
    #[error("it is not JSON")]
    Json(#[source] serde_json::Error),
    /// A line of QEMU's is of no form that it takes.
    #[error("line {0} is neither a [group], nor a key = \"value\", nor a comment")]
    Line(usize),
}

/// Reads a file.
///
/// # Errors
/// [`ConfigError`].
pub fn parse(format: ConfigFormat, raw: &[u8]) -> Result<Facts, ConfigError> {
    match format {
        ConfigFormat::Qemu => qemu(raw),
        ConfigFormat::Firecracker => {
            serde_json::from_slice(raw).map(|json| firecracker(&json)).map_err(ConfigError::Json)
        }
        ConfigFormat::Crosvm => serde_json::from_slice(raw).map(|json| crosvm(&json)).map_err(ConfigError::Json),
    }
}

fn count(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok().filter(|count| (1..=MAX_VCPUS).contains(count))
}

fn mebibytes(value: &Value) -> Option<u64> {
    value.as_u64()?.checked_mul(1 << 20).filter(|bytes| *bytes > 0)
}

fn firecracker(json: &Value) -> Facts {
    let machine = &json["machine-config"];
    Facts { vcpus: count(&machine["vcpu_count"]), mem_bytes: mebibytes(&machine["mem_size_mib"]), ..Facts::default() }
}

fn crosvm(json: &Value) -> Facts {
    let either = |key: &str, inner: &str| match &json[key] {
        Value::Object(object) => object.get(inner).cloned().unwrap_or_default(),
        other => other.clone(),
    };
    Facts {
        name: json["name"].as_str().and_then(|name| text(name.as_bytes())),
        vcpus: count(&either("cpus", "num-cores")),
        mem_bytes: mebibytes(&either("mem", "size")),
        ..Facts::default()
    }
}

/// Groups in brackets with `key = "value"` below; of equal keys the last counts, as in QEMU.
fn qemu(raw: &[u8]) -> Result<Facts, ConfigError> {
    let mut facts = Facts::default();
    let mut group: &[u8] = b"";
    for (number, line) in raw.split(|byte| *byte == b'\n').enumerate().map(|(at, line)| (at + 1, line.trim_ascii())) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(head) = line.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
            group = head.split(|byte| *byte == b' ').next().unwrap_or_default();
            continue;
        }
        let equals = line.iter().position(|byte| *byte == b'=').ok_or(ConfigError::Line(number))?;
        let (key, value) = (line[..equals].trim_ascii(), line[equals + 1..].trim_ascii());
        let value =
            value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).ok_or(ConfigError::Line(number))?;
        match (group, key) {
            (b"name", b"guest") => facts.name = text(value),
            (b"smp-opts", b"cpus") => facts.vcpus = vcpus(value),
            (b"memory", b"size") => facts.mem_bytes = size(value, Bytes::mib(1)),
            _ => {}
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(format: ConfigFormat, raw: &str) -> (Option<u32>, Option<u64>) {
        let facts = parse(format, raw.as_bytes()).unwrap();
        (facts.vcpus, facts.mem_bytes.map(|bytes| bytes >> 20))
    }

    #[test]
    fn each_format_tells_its_shape() {
        let qemu = "# qemu config file\n\n[machine]\n  type = \"q35\"\n[name]\n  guest = \"web\"\n[memory]\n  size = \"1024\"\n\
                    [smp-opts]\n  cpus = \"2\"\n[device \"a\"]\n  size = \"7\"\n";
        assert_eq!(shape(ConfigFormat::Qemu, qemu), (Some(2), Some(1024)));
        assert_eq!(parse(ConfigFormat::Qemu, qemu.as_bytes()).unwrap().name.as_deref(), Some("web"));
        let firecracker =
            r#"{"boot-source":{"kernel_image_path":"vmlinux"},"machine-config":{"vcpu_count":2,"mem_size_mib":1024}}"#;
        assert_eq!(shape(ConfigFormat::Firecracker, firecracker), (Some(2), Some(1024)));
        assert_eq!(
            shape(ConfigFormat::Crosvm, r#"{"cpus":{"num-cores":8},"mem":{"size":2048}}"#),
            (Some(8), Some(2048))
        );
        assert_eq!(shape(ConfigFormat::Crosvm, r#"{"cpus":4,"mem":512}"#), (Some(4), Some(512)));
    }

    #[test]
    fn what_is_no_such_file_is_an_error_that_names_the_place() {
        let error = |format, raw: &str| parse(format, raw.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(ConfigFormat::Firecracker, "{"), "it is not JSON");
        assert!(error(ConfigFormat::Qemu, "[memory]\nsize 4\n").starts_with("line 2 is neither"));
        assert!(error(ConfigFormat::Qemu, "[memory]\nsize = 4\n").starts_with("line 2 is neither"));
        for odd in [r#"{"machine-config":{"vcpu_count":0,"mem_size_mib":-1}}"#, "[]", "7", r#"{"machine-config":[1]}"#]
        {
            assert_eq!(shape(ConfigFormat::Firecracker, odd), (None, None), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            raw in prop::collection::vec(any::<u8>(), 0..400),
            text in "(\\[memory\\]|\\[|\\]|\"|=|size|cpus|\n| |[0-9]{1,20}|\\{|\\}|:){0,60}",
        ) {
            for format in [ConfigFormat::Qemu, ConfigFormat::Firecracker, ConfigFormat::Crosvm] {
                for raw in [raw.as_slice(), text.as_bytes()] {
                    if let Ok(facts) = parse(format, raw) {
                        prop_assert!(facts.vcpus != Some(0) && facts.mem_bytes != Some(0));
                    }
                }
            }
        }
    }
}
