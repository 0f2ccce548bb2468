//! Law: who missed lines gets each of them once and in order, over rotations too, and none that is not durable.

use super::*;

fn numbers(dir: &Path, after: u64, upto: u64) -> Vec<u64> {
    since(dir, after, upto).unwrap().map(|line| line.unwrap().seq).collect()
}

#[test]
fn every_line_behind_a_number_comes_once_and_in_order_over_rotations() {
    let (_root, dir) = fresh_dir();
    drop(rotate::rotated_day(&dir));
    let all = numbers(&dir, 0, u64::MAX);
    assert!(files::rotated(&dir).unwrap().len() > 2, "there were rotations");
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    for after in [0, 1, 3, 4, 9, all.len() as u64] {
        assert_eq!(numbers(&dir, after, u64::MAX), all[usize::try_from(after).unwrap()..], "after {after}");
    }
    assert_eq!(numbers(&dir, 2, 5), [3, 4, 5]);
}
