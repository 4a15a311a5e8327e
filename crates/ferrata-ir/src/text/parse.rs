//! Parsing.

use super::lexer::{Place, Token, tokens};
use crate::error::{Error, Location, Origin, Result};
use crate::literal::{Literal, Scalar};
use crate::primitive::{Attribute, AttributeReader, Primitive};
use crate::program::{Composite, CustomDerivative, Function, Node, Value};
use crate::transform::Memo;
use crate::types::Type;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The last function of the text, with those that it calls; they stand before it.
///
/// # Errors
/// Names line and column of the first thing that cannot be understood, is not defined, or is
/// ill-typed.
pub fn parse(text: &str) -> Result<Arc<Function>> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, functions: HashMap::new() };
    let mut last = None;
    while *parser.peek() != Token::End {
        last = Some(parser.function()?);
    }
    last.ok_or_else(|| Error::new("the text holds no function").help("it starts with `func @`"))
}

struct Parser {
    tokens: Vec<(Token, Place)>,
    at: usize,
    functions: HashMap<(String, usize), Arc<Function>>,
}

/// Values of the function being read, by their numbers in the text.
#[derive(Default)]
struct Values {
    types: HashMap<u32, Type>,
}

impl Values {
    fn define(&mut self, id: u32, ty: Type, place: Place) -> Result<Value> {
        ty.expect_addressable().map_err(|e| place.error(e))?;
        if self.types.insert(id, ty).is_some() {
            return Err(place.error(format!("%{id} is defined twice")));
        }
        Ok(Value(id))
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> Place {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn wanted<T>(&self, what: &str) -> Result<T> {
        Err(self.place().error(format!("{} where {what} should stand", self.peek().show())))
    }

    fn take(&mut self, mark: &'static str) -> bool {
        let found = *self.peek() == Token::Mark(mark);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, mark: &'static str) -> Result<()> {
        if self.take(mark) { Ok(()) } else { self.wanted(&format!("`{mark}`")) }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(w) if w == word);
        if found {
            self.next();
        }
        found
    }

    fn word(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Token::Word(w) | Token::Text(w) => {
                let w = w.clone();
                self.next();
                Ok(w)
            }
            _ => self.wanted(what),
        }
    }

    fn text(&mut self) -> Result<String> {
        match self.peek() {
            Token::Text(_) => self.word("quoted text"),
            _ => self.wanted("quoted text"),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let found = match self.peek() {
            Token::Number(n) => n.parse().ok(),
            _ => None,
        };
        match found {
            Some(n) => {
                self.next();
                Ok(n)
            }
            None => self.wanted(what),
        }
    }

    /// Items between the opening mark, already taken, and `close`.
    fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    fn function(&mut self) -> Result<Arc<Function>> {
        if !self.take_word("func") {
            return self.wanted("`func`");
        }
        let place = self.place();
        let (name, number) = self.function_name()?;
        let mut values = Values::default();
        self.expect("(")?;
        let parameters = self.list(")", |p| {
            let (id, place) = p.value_number()?;
            p.expect(":")?;
            let ty = p.ty()?;
            values.define(id, ty, place)
        })?;
        self.expect("->")?;
        self.expect("(")?;
        let result_types = self.list(")", Self::ty)?;
        let composite = self.composite()?;
        let derivative = self.derivative()?;
        self.expect("{")?;
        let mut nodes = Vec::new();
        while !matches!(self.peek(), Token::Word(w) if w == "return") {
            nodes.push(self.node(&mut values)?);
        }
        self.next();
        let end = self.place();
        let results = self.list("}", |p| p.operand(&values))?;
        let found: Vec<&Type> = results.iter().map(|v| &values.types[&v.0]).collect();
        if found != result_types.iter().collect::<Vec<_>>() {
            return Err(end.error("the results do not have the types that the function promises"));
        }
        let mut function = Function {
            name: name.clone(),
            composite,
            derivative,
            types: Vec::new(),
            parameters,
            nodes,
            results,
            memo: Memo::default(),
        };
        number_densely(&mut function, values);
        let function = Arc::new(function);
        if self.functions.insert((name.clone(), number), function.clone()).is_some() {
            return Err(place
                .error(format!("@{name} is defined twice"))
                .help("tell functions of one name apart by `#2`, `#3`, …"));
        }
        Ok(function)
    }

    /// `@name` or `@name#2`.
    fn function_name(&mut self) -> Result<(String, usize)> {
        self.expect("@")?;
        let name = self.word("a function's name")?;
        let number = if self.take("#") { self.number("a number")? } else { 1 };
        Ok((name, number))
    }

    fn known_function(&mut self) -> Result<Arc<Function>> {
        let place = self.place();
        let key = self.function_name()?;
        let found = self.functions.get(&key).cloned();
        found.ok_or_else(|| {
            let shown = if key.1 == 1 { key.0 } else { format!("{}#{}", key.0, key.1) };
            place.error(format!("@{shown} is not defined before it is used"))
        })
    }

    fn composite(&mut self) -> Result<Option<Composite>> {
        if !self.take_word("composite") {
            return Ok(None);
        }
        let name = interned(self.text()?);
        // Attributes are optional, and so is what follows them: the body opens a brace as well.
        let has_attributes = *self.peek() == Token::Mark("{")
            && matches!(self.tokens.get(self.at + 1), Some((Token::Word(_) | Token::Text(_), _)))
            && matches!(self.tokens.get(self.at + 2), Some((Token::Mark("="), _)));
        let attributes = if has_attributes { self.attributes()? } else { Vec::new() };
        let attributes = attributes.into_iter().map(|(n, a)| (interned(n), a)).collect();
        Ok(Some(Composite { name, attributes }))
    }

    fn derivative(&mut self) -> Result<Option<CustomDerivative>> {
        if !self.take_word("derivative") {
            return Ok(None);
        }
        self.expect("(")?;
        let forward = self.known_function()?;
        self.expect(",")?;
        let backward = self.known_function()?;
        self.expect(")")?;
        Ok(Some(CustomDerivative { forward, backward }))
    }

    fn value_number(&mut self) -> Result<(u32, Place)> {
        let place = self.place();
        self.expect("%")?;
        Ok((self.number("a value's number")?, place))
    }

    fn operand(&mut self, values: &Values) -> Result<Value> {
        let (id, place) = self.value_number()?;
        if !values.types.contains_key(&id) {
            return Err(place.error(format!("%{id} is not defined before it is used")));
        }
        Ok(Value(id))
    }

    /// `%2 = add(%0, %1) {..} : f32[3] scope ".." at "..":12`.
    fn node(&mut self, values: &mut Values) -> Result<Node> {
        let outputs = self.list("=", Self::value_number)?;
        let place = self.place();
        let name = self.word("a primitive's name")?;
        self.expect("(")?;
        let inputs = self.list(")", |p| p.operand(values))?;
        let attributes =
            if *self.peek() == Token::Mark("{") { self.attributes()? } else { Vec::new() };
        let mut reader = AttributeReader(attributes);
        let op = Primitive::read(&name, &mut reader)
            .ok_or_else(|| place.error(format!("there is no primitive `{name}`")))?
            .map_err(|e| place.error(format!("{name}: {e}")))?;
        if let Some((extra, _)) = reader.0.first() {
            return Err(place.error(format!("{name} has no attribute `{extra}`")));
        }
        self.expect(":")?;
        let mut types = Vec::new();
        if !outputs.is_empty() {
            types.push(self.ty()?);
            while self.take(",") {
                types.push(self.ty()?);
            }
        }
        let origin = self.origin()?;
        let operands: Vec<&Type> = inputs.iter().map(|v| &values.types[&v.0]).collect();
        let inferred =
            op.infer(&operands).map_err(|e| place.error(e.at(&name, &operands, &origin)))?;
        if inferred != types || types.len() != outputs.len() {
            let show =
                |types: &[Type]| types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
            return Err(place.error(format!(
                "{name} gives ({}), but the text says ({}) for {} results",
                show(&inferred),
                show(&types),
                outputs.len()
            )));
        }
        let outputs = outputs
            .into_iter()
            .zip(types)
            .map(|((id, place), ty)| values.define(id, ty, place))
            .collect::<Result<Vec<_>>>()?;
        Ok(Node { op, inputs, outputs, origin })
    }

    fn origin(&mut self) -> Result<Origin> {
        let scope = if self.take_word("scope") { self.text()? } else { String::new() };
        let mut location = None;
        if self.take_word("at") {
            let file = self.text()?.into();
            self.expect(":")?;
            location = Some(Location { file, line: self.number("a line number")? });
        }
        Ok(Origin { scope: scope.into(), location })
    }

    /// `f32[2,3]`.
    fn ty(&mut self) -> Result<Type> {
        let place = self.place();
        let dtype = self.word("a type")?.parse().map_err(|e| place.error(e))?;
        self.expect("[")?;
        let shape: Vec<usize> = self.list("]", |p| p.number("a size"))?;
        Ok(Type { dtype, shape })
    }

    /// `{kind = sum, dims = [0]}`.
    fn attributes(&mut self) -> Result<Vec<(String, Attribute)>> {
        self.expect("{")?;
        let mut seen = HashSet::new();
        self.list("}", |p| {
            let place = p.place();
            let name = p.word("an attribute's name")?;
            p.expect("=")?;
            if !seen.insert(name.clone()) {
                return Err(place.error(format!("attribute `{name}` is given twice")));
            }
            Ok((name, p.attribute()?))
        })
    }

    fn attribute(&mut self) -> Result<Attribute> {
        match self.peek().clone() {
            Token::Number(n) => self.numeral(&n),
            Token::Text(t) => {
                self.next();
                Ok(Attribute::Text(t))
            }
            Token::Word(w) => self.word_attribute(w),
            Token::Mark("[") => {
                self.next();
                Ok(Attribute::Ints(self.list("]", |p| p.number("an integer"))?))
            }
            Token::Mark("@") => Ok(Attribute::Function(self.known_function()?)),
            Token::Mark("(") => {
                self.next();
                if *self.peek() == Token::Mark("@") {
                    return Ok(Attribute::Functions(self.list(")", Self::known_function)?));
                }
                Ok(Attribute::Types(self.list(")", Self::ty)?))
            }
            _ => self.wanted("an attribute's value"),
        }
    }

    fn numeral(&mut self, n: &str) -> Result<Attribute> {
        let value = match n.parse() {
            Ok(i) => Some(Attribute::Int(i)),
            Err(_) => n.parse().ok().map(|x| Attribute::Scalar(Scalar::Float(x))),
        };
        let Some(value) = value else { return self.wanted("a number") };
        self.next();
        Ok(value)
    }

    /// `true`, `inf`, `nan:0x..`, a type, a literal, or a bare word.
    fn word_attribute(&mut self, word: String) -> Result<Attribute> {
        let following = self.tokens.get(self.at + 1).map(|(token, _)| token);
        if following == Some(&Token::Mark("[")) {
            let ty = self.ty()?;
            return if self.take(":") { self.literal(ty) } else { Ok(Attribute::Type(ty)) };
        }
        self.next();
        match word.as_str() {
            "true" => Ok(Attribute::Bool(true)),
            "false" => Ok(Attribute::Bool(false)),
            "inf" => Ok(Attribute::Scalar(Scalar::Float(f64::INFINITY))),
            "nan" if self.take(":") => {
                let place = self.place();
                let digits = self.hexadecimal()?;
                let bits = u64::from_str_radix(&digits, 16);
                let bits = bits.map_err(|_| place.error("a NaN has 16 hexadecimal digits"))?;
                Ok(Attribute::Scalar(Scalar::Float(f64::from_bits(bits))))
            }
            _ => Ok(Attribute::Word(word)),
        }
    }

    fn hexadecimal(&mut self) -> Result<String> {
        match self.peek() {
            Token::Number(n) if n.starts_with("0x") => {
                let digits = n[2..].to_string();
                self.next();
                Ok(digits)
            }
            _ => self.wanted("hexadecimal digits after 0x"),
        }
    }

    fn literal(&mut self, ty: Type) -> Result<Attribute> {
        let place = self.place();
        let digits = self.hexadecimal()?;
        let digits = digits.as_bytes();
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok().filter(|_| pair.len() == 2)
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| place.error("bytes are pairs of hexadecimal digits"))?;
        let literal = Literal::from_bytes(ty, &bytes).map_err(|e| place.error(e))?;
        Ok(Attribute::Literal(Arc::new(literal)))
    }
}

/// Gives values the numbers 0, 1, 2, … in the order of their numbers in the text.
fn number_densely(function: &mut Function, values: Values) {
    let mut all: Vec<(u32, Type)> = values.types.into_iter().collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    let place: HashMap<u32, u32> =
        all.iter().enumerate().map(|(i, (id, _))| (*id, i as u32)).collect();
    let renumber = |values: &mut Vec<Value>| values.iter_mut().for_each(|v| v.0 = place[&v.0]);
    renumber(&mut function.parameters);
    renumber(&mut function.results);
    for node in &mut function.nodes {
        renumber(&mut node.inputs);
        renumber(&mut node.outputs);
    }
    function.types = all.into_iter().map(|(_, ty)| ty).collect();
}

/// The one copy of a composite's or attribute's name, which lives as long as the process: the set
/// of names is small, and devices compare them with names in their code.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = name.leak();
    names.insert(name);
    name
}
