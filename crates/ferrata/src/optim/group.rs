//! Parameter groups.

use super::rule::Rule;

/// Parameters that have settings of their own.
///
/// ```
/// use ferrata::optim::{Adam, Group, Optimizer, Select};
/// let optimizer = Optimizer::new(Adam::default())
///     .weight_decay(0.1)
///     .group(Group::new(Select::Path("embedding.*".into())).frozen())
///     .group(Group::new(Select::FewerDims(2)).weight_decay(0.0).lr_scale(2.0));
/// let bias = ferrata::Tensor::from([0.0f32]);
/// assert!(!optimizer.is_trained("embedding.weight", &bias));
/// assert!(optimizer.is_trained("output.weight", &bias));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    select: Select,
    pub(super) rule: Option<Rule>,
    pub(super) weight_decay: Option<f64>,
    pub(super) lr_scale: f64,
    pub(super) frozen: bool,
}

/// Which parameters belong to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// Those whose whole path matches; `*` stands for any text, also with dots.
    Path(String),
    /// Those with fewer dimensions than this.
    FewerDims(usize),
    /// Those with at least this many dimensions.
    AtLeastDims(usize),
}

impl Group {
    /// The selected parameters, with the optimiser's own settings so far.
    pub fn new(select: Select) -> Self {
        Group { select, rule: None, weight_decay: None, lr_scale: 1.0, frozen: false }
    }

    /// Gives them another update rule.
    #[must_use]
    pub fn rule(mut self, rule: impl Into<Rule>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Gives them another weight decay.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// Multiplies their learning rate.
    #[must_use]
    pub fn lr_scale(mut self, lr_scale: f64) -> Self {
        self.lr_scale = lr_scale;
        self
    }

    /// Keeps them as they are; they need no state.
    #[must_use]
    pub fn frozen(mut self) -> Self {
        self.frozen = true;
        self
    }

    pub(super) fn selects(&self, path: &str, shape: &[usize]) -> bool {
        match &self.select {
            Select::Path(pattern) => matches(pattern, path),
            Select::FewerDims(n) => shape.len() < *n,
            Select::AtLeastDims(n) => shape.len() >= *n,
        }
    }
}

/// Whether `text` is `pattern`, where `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*", "", true),
            ("h.*.bias", "h.0.attention.bias", true),
            ("h.*.bias", "h.bias", false),
            ("*.bias", "x.bias.y", false),
            ("a*a", "a", false),
            ("a*b*c", "a.b.b.c", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
