//! Law: the places of kernel fields are those that an independent decoder of the same types finds.
//!
//! The decoder is `bpftool btf dump`, whose JSON is walked here by other means. Kernels: the running one, and each file of
//! the folder that `KVMETER_BTF_DIR` names.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter::bpf::{
    btf::{Btf, Place},
    offsets::{self, FIELDS},
};
use kvmeter_tests::skip::{installed, skipped};
use serde_json::Value;

const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// The kernels' types, or none, and why.
fn kernels(test: &str) -> Result<Vec<PathBuf>> {
    let mut kernels: Vec<_> = Path::new(RUNNING).exists().then(|| RUNNING.into()).into_iter().collect();
    if let Some(folder) = std::env::var_os("KVMETER_BTF_DIR") {
        let before = kernels.len();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            kernels.extend(Some(entry?.path()).filter(|path| path.is_file()));
        }
        ensure!(kernels.len() > before, "no file in {}", folder.display());
    }
    if kernels.is_empty() {
        skipped(test, &format!("this kernel has no {RUNNING}"));
    } else if !installed("bpftool") {
        skipped(test, "bpftool is not installed");
        kernels.clear();
    }
    Ok(kernels)
}

/// What bpftool says of one kernel.
struct Dump(HashMap<u64, Value>);

impl Dump {
    fn of(path: &Path) -> Result<Self> {
        let ran = Command::new("bpftool").args(["btf", "dump", "--json", "file"]).arg(path).output()?;
        ensure!(ran.status.success(), "bpftool: {}", String::from_utf8_lossy(&ran.stderr));
        let mut dump: Value = serde_json::from_slice(&ran.stdout)?;
        let Value::Array(types) = dump["types"].take() else { anyhow::bail!("bpftool listed no types") };
        Ok(Self(types.into_iter().filter_map(|ty| Some((ty["id"].as_u64()?, ty))).collect()))
    }

    /// What stands behind typedefs and qualifiers.
    fn bare(&self, id: &Value) -> Option<&Value> {
        let ty = self.0.get(&id.as_u64()?)?;
        match ty["kind"].as_str()? {
            "TYPEDEF" | "CONST" | "VOLATILE" | "RESTRICT" | "TYPE_TAG" => self.bare(&ty["type_id"]),
            _other => Some(ty),
        }
    }

    fn size(&self, id: &Value) -> Option<u64> {
        let ty = self.bare(id)?;
        match ty["kind"].as_str()? {
            "PTR" => Some(8),
            "ARRAY" => Some(self.size(&ty["type_id"])? * ty["nr_elems"].as_u64()?),
            _other => ty["size"].as_u64(),
        }
    }

    /// Every member that C finds in a struct without naming another, and its place in bits; those without a name first.
    fn members<'a>(&'a self, owner: &'a Value) -> Vec<(&'a Value, u64)> {
        let own = owner["members"].as_array().into_iter().flatten();
        let own = own.filter_map(|member| Some((member, member["bits_offset"].as_u64()?)));
        let (anonymous, mut named): (Vec<_>, Vec<_>) = own.partition(|(member, _)| member["name"] == "(anon)");
        for (member, at) in anonymous {
            let inner = self.bare(&member["type_id"]).map(|inner| self.members(inner)).unwrap_or_default();
            named.extend(inner.into_iter().map(|(member, bits)| (member, at + bits)));
        }
        named
    }

    /// The only struct of that name.
    fn structure(&self, name: &str) -> Option<&Value> {
        let mut all = self.0.values().filter(|ty| ty["kind"] == "STRUCT" && ty["name"] == name);
        all.next().filter(|_| all.next().is_none())
    }

    /// Place of a path, unless it is no whole number of bytes.
    fn place(&self, owner: &Value, path: &str) -> Option<Place> {
        let (part, rest) = path.split_once('.').map_or((path, None), |(part, rest)| (part, Some(rest)));
        let (member, bits) = self.members(owner).into_iter().find(|(member, _)| member["name"] == part)?;
        if member.get("bitfield_size").is_some() || bits % 8 != 0 {
            return None;
        }
        let here = u32::try_from(bits / 8).ok()?;
        match rest {
            Some(rest) => {
                let inner = self.place(self.bare(&member["type_id"])?, rest)?;
                Some(Place { offset: here + inner.offset, ..inner })
            }
            None => Some(Place { offset: here, size: u32::try_from(self.size(&member["type_id"])?).ok()? }),
        }
    }
}

#[test]
fn every_field_a_program_reads_is_where_another_decoder_finds_it() -> Result<()> {
    for kernel in kernels("every_field_a_program_reads_is_where_another_decoder_finds_it")? {
        let (bytes, dump) = (std::fs::read(&kernel)?, Dump::of(&kernel)?);
        let btf = Btf::parse(&bytes).with_context(|| kernel.display().to_string())?;
        let ours = offsets::resolve(&btf);
        let mut found = 0;
        for field in FIELDS {
            let owner = dump.structure(field.owner);
            let theirs = field.paths.iter().find_map(|path| dump.place(owner?, path)).map(|place| place.offset);
            let ours = ours[field.global].as_ref().ok().copied();
            ensure!(ours == theirs, "{}: {}: {ours:?} here, {theirs:?} there", kernel.display(), field.global);
            found += usize::from(ours.is_some());
        }
        println!("{}: {found} of {} fields", kernel.display(), FIELDS.len());
        ensure!(ours["TASK_RUNTIME"].is_ok(), "{}: not even the run time is found", kernel.display());
    }
    Ok(())
}

#[test]
fn every_member_of_every_struct_is_where_another_decoder_finds_it() -> Result<()> {
    for kernel in kernels("every_member_of_every_struct_is_where_another_decoder_finds_it")? {
        let (bytes, dump) = (std::fs::read(&kernel)?, Dump::of(&kernel)?);
        let btf = Btf::parse(&bytes).with_context(|| kernel.display().to_string())?;
        let mut by_name: HashMap<&str, Vec<&Value>> = HashMap::new();
        for ty in dump.0.values().filter(|ty| ty["kind"] == "STRUCT" || ty["kind"] == "UNION") {
            by_name.entry(ty["name"].as_str().unwrap_or("(anon)")).or_default().push(ty);
        }
        let (mut places, mut bit_fields) = (0, 0);
        for (name, all) in by_name.iter().filter(|(name, _)| **name != "(anon)") {
            let [owner] = all[..] else { continue };
            for (member, bits) in dump.members(owner) {
                let path = member["name"].as_str().context("a member without a name")?;
                let ours = btf.place(name, path).ok();
                let at = || format!("{}: {name}.{path} at bit {bits}: {ours:?}", kernel.display());
                if member.get("bitfield_size").is_some() {
                    ensure!(ours.is_none(), "{}", at());
                    bit_fields += 1;
                } else {
                    let size = dump.size(&member["type_id"]).with_context(at)?;
                    ensure!(
                        ours.is_some_and(|ours| 8 * u64::from(ours.offset) == bits && u64::from(ours.size) == size),
                        "{}: {size} bytes there",
                        at()
                    );
                    places += 1;
                }
            }
        }
        println!("{}: {places} places equal, {bit_fields} bit fields refused", kernel.display());
        ensure!(places > 10_000 && bit_fields > 100, "{}: so few members", kernel.display());
    }
    Ok(())
}
