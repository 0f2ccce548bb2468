//! The laws of `[[storage.pools]]`.

use std::time::Duration;

use super::{good, problems};
use crate::units::Bytes;

#[test]
fn pools_are_directories_with_patterns() {
    let config = good(
        "[[storage.pools]]\n\
         path = \"/var/lib/images\"\n\
         images = [\"{vm_id}.qcow2\", \"{vm_id}-{disk}.qcow2\"]\n\
         snapshots = \"{vm_id}@{snapshot_id}.qcow2\"\n\
         resize_step = \"1MiB\"\n\
         interval = \"5s\"\n\
         [[storage.pools]]\n\
         path = \"/srv/more\"\n\
         images = \"{vm_id:uuid}/*.img\"\n",
    );
    let [first, second] = config.pools.as_slice() else { panic!("{:?}", config.pools) };
    assert_eq!((first.images.len(), first.snapshots.len()), (2, 1));
    assert_eq!((first.resize_step, first.interval), (Bytes::mib(1), Duration::from_secs(5)));
    assert_eq!((second.resize_step, second.interval), (Bytes::mib(64), Duration::from_secs(30)));
    assert_eq!(
        first.name(&["web@1.qcow2"]).map(|name| (name.vm_id, name.snapshot_id)),
        Some(("web".into(), "1".into()))
    );
    assert!(good("storage.pools = []").pools.is_empty());
}

#[test]
fn every_mistake_in_pools_is_told_with_its_line() {
    let found = problems(
        "[[storage.pools]]\n\
         path = \"images\"\n\
         images = \"{vm}.img\"\n\
         [[storage.pools]]\n\
         path = \"/a/../b\"\n\
         snapshots = [\"{vm_id}\"]\n\
         resize_step = \"1\"\n\
         interval = 5\n\
         [[storage.pools]]\n\
         path = \"/a\"\n\
         image = \"x\"\n\
         [[storage.pools]]\n\
         path = \"/b\"\n\
         [[storage.pools]]\n\
         path = \"/c\"\n\
         images = \"x\"\n\
         [[storage.pools]]\n\
         path = \"/c/d\"\n\
         images = \"x\"\n",
    );
    let begin = [
        "k.toml:2: storage.pools[0].path = \"images\": must be a directory's absolute path",
        "k.toml:3: storage.pools[0].images = \"{vm}.img\": \"{vm}.img\": {vm} is none of",
        "k.toml:5: storage.pools[1].path",
        "k.toml:6: storage.pools[1].snapshots = [\"{vm_id}\"]: \"{vm_id}\": a pattern of snapshots must have {snapshot_id}",
        "k.toml:7: storage.pools[1].resize_step = \"1\": must be a size",
        "k.toml:8: storage.pools[1].interval = 5: must be a duration",
        "k.toml:11: storage.pools[2].image = \"x\": unknown key; did you mean \"images\"?",
        "k.toml:13: storage.pools[3].path = \"/b\": needs a pattern",
        "k.toml:18: storage.pools[5].path = \"/c/d\": lies in another pool",
    ];
    assert_eq!(found.len(), begin.len(), "{found:#?}");
    for begin in begin {
        assert!(found.iter().any(|text| text.starts_with(begin)), "{begin} in {found:#?}");
    }
    assert!(problems("storage.pools = 3")[0].contains("must be tables"));
}
