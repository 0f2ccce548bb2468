//! Looking up `--flag VALUE` and `--flag=VALUE` in the command line of a VMM whose other flags are not known.

/// The value of the last flag with one of these names; what follows `--` is no flag.
///
/// A name of two dashes may be joined to its value by `=`.
pub(super) fn value<'a>(args: &'a [Vec<u8>], names: &[&str]) -> Option<&'a [u8]> {
    let mut found = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == b"--" {
            break;
        }
        if names.iter().any(|name| arg == name.as_bytes()) {
            found = rest.next().map(Vec::as_slice);
        } else if let Some(joined) = names.iter().find_map(|name| joined(arg, name)) {
            found = Some(joined);
        }
    }
    found
}

fn joined<'a>(arg: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !name.starts_with("--") {
        return None;
    }
    arg.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(args: &str) -> Option<String> {
        let args: Vec<Vec<u8>> = args.split(' ').map(|a| a.as_bytes().to_vec()).collect();
        value(&args, &["--id", "-i"]).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    #[test]
    fn a_value_stands_behind_its_flag_or_behind_an_equals_sign() {
        assert_eq!(find("--x --id a"), Some("a".into()));
        assert_eq!(find("--id=a --y"), Some("a".into()));
        assert_eq!(find("-i a"), Some("a".into()));
        assert_eq!(find("-i=a"), None);
        assert_eq!(find("--identity a"), None);
    }

    #[test]
    fn the_last_one_wins_and_a_missing_value_is_none() {
        assert_eq!(find("--id a --id=b"), Some("b".into()));
        assert_eq!(find("--id"), None);
    }

    #[test]
    fn nothing_behind_two_dashes_is_a_flag() {
        assert_eq!(find("--id a -- --id b"), Some("a".into()));
    }
}
