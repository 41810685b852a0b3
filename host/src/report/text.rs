//! Lines that fit a terminal.

use std::borrow::Cow;

/// Characters of a line on a terminal, where it can be broken.
pub const LINE: usize = 160;
/// Characters of the narrowest line that is kept to.
const NARROWEST: usize = 60;

/// Characters of a line on the terminal that standard output is, [`LINE`] at most and where it is none.
pub fn line_width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    columns.filter(|&columns| columns > 0).map_or(LINE, |columns| columns.clamp(NARROWEST, LINE))
}

/// Characters of a name in a line: a candidate's, a task's, a pattern.
pub const NAME: usize = 40;

/// A name of at most so many characters, its middle left out where it is longer: names that differ often differ at their ends.
pub fn shortened(name: &str, most: usize) -> Cow<'_, str> {
    // A class may be named by any text; a line break in it is none of the table's.
    let name = match name.contains(char::is_control) {
        true => Cow::Owned(name.replace(char::is_control, " ")),
        false => Cow::Borrowed(name),
    };
    let length = name.chars().count();
    if length <= most {
        return name;
    }
    let end = most.saturating_sub(1) / 2;
    let begin = most.saturating_sub(1) - end;
    let first: String = name.chars().take(begin).collect();
    let last: String = name.chars().skip(length - end).collect();
    Cow::Owned(format!("{first}…{last}"))
}

/// The text with what would steer a terminal written out (`\u001b`), line breaks and tabs left: for what a plugin or a file says. JSON stays
/// JSON of the same values.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && c != '\t' && steers(c))
}

/// As [`printable`], for what is one line: line breaks and tabs are written out too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// Whether a terminal acts on a character instead of showing it: control characters, line separators, and those that turn the direction of
/// writing around, by which a text can read as another one.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' if which(c) => out.extend(c.escape_default()),
            c if which(c) => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The text with longer lines broken at spaces. A word that is longer by itself, such as a path, stays whole.
pub fn wrapped(text: &str) -> String {
    wrapped_to(text, line_width())
}

fn wrapped_to(text: &str, most: usize) -> String {
    let lines = text.split('\n').map(|line| {
        if line.chars().count() <= most {
            return line.to_owned();
        }
        let indent = line.len() - line.trim_start().len();
        let mut broken = line[..indent].to_owned();
        let mut length = indent;
        for (i, word) in line[indent..].split(' ').enumerate() {
            let more = word.chars().count();
            if i > 0 && length + 1 + more > most {
                broken += &format!("\n{}    ", &line[..indent]);
                length = indent + 4;
            } else if i > 0 {
                broken.push(' ');
                length += 1;
            }
            broken += word;
            length += more;
        }
        broken
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("größer", 6), "größer");
        assert_eq!(shortened("banking_lr_1e-3", 9), "bank…1e-3");
        assert_eq!(shortened("banking_lr_1e-3", 8), "bank…e-3");
        assert_eq!(shortened("a\nb\tc", 5), "a b c");
    }

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        let said = "größer\t\u{1b}[31mred\u{1b}[0m\n\u{9b}2J\r\u{202e}so.";
        assert_eq!(printable(said), "größer\t\\u001b[31mred\\u001b[0m\n\\u009b2J\\r\\u202eso.");
        assert_eq!(one_line("a\tb\nc"), "a\\tb\\nc");
        let json = serde_json::json!({ said: said }).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printable(&json)).unwrap()[said], said);
        assert!(matches!(printable("plain text, ünïcödé\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let word = "x".repeat(50);
        let line = format!("  {word} {word} {word} {word}");
        assert_eq!(wrapped(&line), format!("  {word} {word} {word}\n      {word}"));
        assert_eq!(wrapped("a\n\nb  c\n"), "a\n\nb  c\n");
        assert_eq!(wrapped_to("a bb ccc", 5), "a bb\n    ccc");
        let path = format!("saved in /{}", "x".repeat(300));
        assert!(wrapped(&path).ends_with(&"x".repeat(300)), "a word stays whole");
    }
}
