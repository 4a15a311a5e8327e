//! Splitting text into tokens.

use crate::error::{Error, Result};

/// A word, number, string or mark.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `func`, `f32`, `reduce`.
    Word(String),
    /// Digits with sign, point and exponent as they stand, or `0x` and hexadecimal digits.
    Number(String),
    /// Text between quotes.
    Text(String),
    /// One of `(){}[]:,=@%#` or `->`.
    Mark(&'static str),
    /// After the last token.
    End,
}

impl Token {
    /// How an error shows it.
    pub(super) fn show(&self) -> String {
        match self {
            Token::Word(w) | Token::Number(w) => format!("`{w}`"),
            Token::Text(t) => format!("{t:?}"),
            Token::Mark(m) => format!("`{m}`"),
            Token::End => "the end".to_string(),
        }
    }
}

/// Line and column, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    /// The error with this place in front.
    pub(super) fn error(self, message: impl std::fmt::Display) -> Error {
        Error::new(format!("line {}, column {}: {message}", self.line, self.column))
    }
}

/// Whether a bare word may contain the character.
pub(super) fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

const MARKS: [&str; 13] = ["->", "(", ")", "{", "}", "[", "]", ":", ",", "=", "@", "%", "#"];

/// All tokens, each with its place, and `End` at the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Place)>> {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 } };
    let mut all = Vec::new();
    loop {
        lexer.take_while(char::is_whitespace);
        let place = lexer.place;
        let token = lexer.token()?;
        let done = token == Token::End;
        all.push((token, place));
        if done {
            return Ok(all);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let text = self.rest;
        while self.rest.chars().next().is_some_and(&mut wanted) {
            self.next();
        }
        &text[..text.len() - self.rest.len()]
    }

    fn token(&mut self) -> Result<Token> {
        let place = self.place;
        let mut ahead = self.rest.chars();
        let Some(c) = ahead.next() else { return Ok(Token::End) };
        let signed = c == '-' && ahead.next().is_some_and(|c| c.is_ascii_digit() || c == 'i');
        if c.is_ascii_digit() || signed {
            return Ok(Token::Number(self.number()));
        }
        if c.is_ascii_alphabetic() || c == '_' {
            return Ok(Token::Word(self.take_while(in_word).to_string()));
        }
        if c == '"' {
            return self.text().map(Token::Text);
        }
        let mark = MARKS.iter().find(|m| self.rest.starts_with(**m));
        let mark = mark.ok_or_else(|| place.error(format!("unexpected character {c:?}")))?;
        for _ in mark.chars() {
            self.next();
        }
        Ok(Token::Mark(mark))
    }

    /// Takes in a sign after an exponent: `-1.5e-7`.
    fn number(&mut self) -> String {
        let hexadecimal = self.rest.starts_with("0x");
        let mut previous = ' ';
        let taken = self.take_while(|c| {
            let first = previous == ' ';
            let after_exponent = !hexadecimal && matches!(previous, 'e' | 'E');
            let sign = matches!(c, '-' | '+') && (first || after_exponent);
            previous = c;
            sign || c.is_ascii_alphanumeric() || c == '.'
        });
        taken.to_string()
    }

    fn text(&mut self) -> Result<String> {
        let start = self.place;
        self.next();
        let mut text = String::new();
        loop {
            let place = self.place;
            match self.next() {
                None => return Err(start.error("the text that starts here has no end")),
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(place)?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self, place: Place) -> Result<char> {
        match self.next() {
            Some('n') => Ok('\n'),
            Some(c @ ('"' | '\\')) => Ok(c),
            Some('u') => {
                let digits = self.take_while(|c| c != '}' && c != '"');
                let code = digits.strip_prefix('{').and_then(|d| u32::from_str_radix(d, 16).ok());
                self.next();
                code.and_then(char::from_u32).ok_or_else(|| place.error("no such character"))
            }
            _ => Err(place.error("unknown escape; one of \\\" \\\\ \\n \\u{..}")),
        }
    }
}
