//! The tree of an expression: recursive descent, one function for each level of precedence.

use super::token::{Kind, Token, tokens};
use super::{DEEPEST, Error, Expr, LONGEST, matcher};

/// Reads a whole expression.
pub(super) fn expression(text: &str) -> Result<Expr, Error> {
    if text.len() > LONGEST {
        let message =
            format!("a selector has at most {LONGEST} bytes; this one has {}", text.len());
        return Err(Error::new(text, 0, message));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: tokens.into_iter().peekable(), depth: 0 };
    if parser.peek().is_none() {
        return Err(parser.error(0, "this selector is empty; write * for all hosts"));
    }
    let root = parser.or()?;
    match parser.tokens.next() {
        None => Ok(root),
        Some(token) => Err(parser.after_the_end(&token)),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Expr, Error> {
        let first = self.and()?;
        let mut parts = vec![first];
        while self.eat(&Kind::Or) {
            parts.push(self.and()?);
        }
        Ok(alone(parts).unwrap_or_else(Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, Error> {
        let first = self.not()?;
        let mut parts = vec![first];
        while self.eat(&Kind::And) {
            parts.push(self.not()?);
        }
        Ok(alone(parts).unwrap_or_else(Expr::And))
    }

    fn not(&mut self) -> Result<Expr, Error> {
        let Some(token) = self.tokens.next() else {
            let message = "the selector ends where hosts should follow";
            return Err(self.error(self.text.chars().count(), message));
        };
        match token.kind {
            Kind::Not => self.nested(token.at, Self::not).map(|inner| Expr::Not(Box::new(inner))),
            Kind::Open => {
                let inner = self.nested(token.at, Self::or)?;
                self.close(token.at)?;
                Ok(inner)
            }
            Kind::Regex(regex) => matcher::regex(self.text, token.at, &regex).map(Expr::Match),
            Kind::Word(word) => matcher::word(self.text, &word).map(Expr::Match),
            Kind::Close => Err(self.error(token.at, "hosts should stand before this ')'")),
            Kind::And => Err(self.error(token.at, "hosts should stand before this 'and'")),
            Kind::Or => Err(self.error(token.at, "hosts should stand before this 'or'")),
        }
    }

    fn nested(
        &mut self,
        at: usize,
        inner: fn(&mut Self) -> Result<Expr, Error>,
    ) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error(at, format!("nested deeper than {DEEPEST} levels")));
        }
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn close(&mut self, open: usize) -> Result<(), Error> {
        match self.tokens.next() {
            Some(Token { kind: Kind::Close, .. }) => Ok(()),
            Some(token) => Err(self.after_the_end(&token)),
            None => Err(self.error(open, "this '(' is never closed")),
        }
    }

    /// An operand is complete, and this follows it.
    fn after_the_end(&self, token: &Token) -> Error {
        let message = match &token.kind {
            Kind::Close => "this ')' was never opened",
            Kind::Word(word) if word.chars.first() == Some(&',') => {
                "write a list without spaces: web1,web2"
            }
            Kind::Open | Kind::Not | Kind::Regex(_) | Kind::Word(_) => {
                "say how this goes with what stands before it: 'and' or 'or'"
            }
            Kind::And | Kind::Or => "hosts should stand before this",
        };
        self.error(token.at, message)
    }

    fn peek(&mut self) -> Option<&Token> {
        self.tokens.peek()
    }

    fn eat(&mut self, kind: &Kind) -> bool {
        self.tokens.next_if(|token| token.kind == *kind).is_some()
    }

    fn error(&self, at: usize, message: impl Into<String>) -> Error {
        Error::new(self.text, at, message)
    }
}

/// The only one of them, or all of them.
fn alone(mut parts: Vec<Expr>) -> Result<Expr, Vec<Expr>> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        Some(last) => {
            parts.push(last);
            Err(parts)
        }
        None => Err(parts),
    }
}
