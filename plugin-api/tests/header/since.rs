//! Which minor each symbol of the boundary came with: `plugin-api/since.txt`, a line for each. What once stands there stays.

use std::collections::BTreeMap;

/// The list, as it was and as it becomes.
pub struct Since {
    known: BTreeMap<String, u32>,
    seen: BTreeMap<String, u32>,
    minor: u32,
}

impl Since {
    /// Reads the list. What is not in it came with `minor`.
    pub fn new(list: &str, minor: u32) -> Self {
        let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let known = lines.map(|line| {
            let (version, symbol) = line.split_once(' ').expect("a version and a symbol");
            let minor = version.strip_prefix("1.").and_then(|minor| minor.parse().ok()).expect("a version 1.x");
            (symbol.to_owned(), minor)
        });
        Self { known: known.collect(), seen: BTreeMap::new(), minor }
    }

    /// Says that a symbol is there. Gives what its doc comment says, with `Since 1.1.` where it came after 1.0 and later than what it is
    /// a part of, `Table` of `Table.field`.
    ///
    /// # Panics
    /// Where the comment names another minor.
    pub fn of(&mut self, symbol: impl Into<String>, docs: &str) -> String {
        let symbol = symbol.into();
        let minor = self.known.get(&symbol).copied().unwrap_or(self.minor);
        let whole = symbol.rsplit_once('.').and_then(|(whole, _)| self.seen.get(whole)).copied();
        let docs = docs.trim_end();
        let said = docs.split_once("Since 1.").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect());
        if let Some::<String>(said) = &said {
            assert_eq!(*said, minor.to_string(), "{symbol} came with 1.{minor}, and its comment says: {docs}");
        }
        self.seen.insert(symbol, minor);
        if said.is_some() {
            return docs.to_owned() + if docs.ends_with('.') { "" } else { "." };
        }
        if minor == 0 || whole == Some(minor) { docs.to_owned() } else { format!("{docs} Since 1.{minor}.") }
    }

    /// The list anew.
    ///
    /// # Panics
    /// Where a symbol is gone that some plugin may have been built with.
    pub fn list(&self) -> String {
        let gone: Vec<_> = self.known.keys().filter(|symbol| !self.seen.contains_key(*symbol)).collect();
        assert!(gone.is_empty(), "what was promised once stays, and these are gone: {gone:?}");
        let mut lines: Vec<(u32, &str)> = self.seen.iter().map(|(symbol, minor)| (*minor, symbol.as_str())).collect();
        lines.sort_unstable();
        let head =
            "# The minor of the ABI that each symbol came with. Written by the test `header`; never taken back.\n";
        lines.iter().fold(head.to_owned(), |list, (minor, symbol)| list + &format!("1.{minor} {symbol}\n"))
    }
}
