//! Where operations are recorded: scope, user line, and the functions being traced, kept for each
//! thread.

use super::Tensor;
use ferrata_ir::{Location as SourceLine, Origin};
use std::cell::RefCell;
use std::panic::Location;
use std::sync::Arc;

/// Scope and user line of one operation.
#[derive(Clone)]
pub(crate) struct Place {
    scope: Arc<str>,
    location: &'static Location<'static>,
}

struct Current {
    scope: Arc<str>,
    /// The user's line, while one of our operations records others.
    location: Option<&'static Location<'static>>,
    /// Functions being traced, outermost first; each with the effects recorded so far.
    traces: Vec<Vec<Tensor>>,
}

thread_local! {
    static CURRENT: RefCell<Current> = RefCell::new(Current {
        scope: "".into(),
        location: None,
        traces: Vec::new(),
    });
}

impl Place {
    /// The current place; `caller` is the user's line unless one of our operations is running.
    pub fn here(caller: &'static Location<'static>) -> Place {
        CURRENT.with_borrow(|c| Place {
            scope: c.scope.clone(),
            location: c.location.unwrap_or(caller),
        })
    }

    /// The scope.
    pub fn scope(&self) -> &Arc<str> {
        &self.scope
    }

    /// File and line.
    pub fn line(&self) -> (&'static str, u32) {
        (self.location.file(), self.location.line())
    }

    /// As programs keep it.
    pub fn origin(&self) -> Origin {
        Origin { scope: self.scope.clone(), location: Some(SourceLine::from(self.location)) }
    }
}

/// Changes of the current place; each undoes itself when dropped.
pub(crate) enum Frame {
    Named,
    Scope(Arc<str>),
}

impl Frame {
    /// Whether an operation with a name of its own is recording others.
    pub fn is_named() -> bool {
        CURRENT.with_borrow(|c| c.location.is_some())
    }

    /// Until the result is dropped, operations get this place's line; `None` if they have one.
    pub fn name_operation(place: &Place) -> Option<Frame> {
        Frame::at(place.location)
    }

    /// Until the result is dropped, operations get this line; `None` if they have one.
    pub fn at(line: &'static Location<'static>) -> Option<Frame> {
        CURRENT.with_borrow_mut(|c| {
            if c.location.is_some() {
                return None;
            }
            c.location = Some(line);
            Some(Frame::Named)
        })
    }

    /// Until the result is dropped, operations are in the scope `name` inside the current one.
    pub fn scope(name: &str) -> Frame {
        CURRENT.with_borrow_mut(|c| {
            let outer = c.scope.clone();
            if !name.is_empty() {
                c.scope =
                    if outer.is_empty() { name.into() } else { format!("{outer}.{name}").into() };
            }
            Frame::Scope(outer)
        })
    }

    /// The current scope.
    pub fn current_scope() -> Arc<str> {
        CURRENT.with_borrow(|c| c.scope.clone())
    }

    /// How many functions are being traced.
    pub fn depth() -> u32 {
        CURRENT.with_borrow(|c| c.traces.len() as u32)
    }

    /// Notes an operation that must run although nobody may use its result.
    pub fn add_effect(tensor: &Tensor) {
        CURRENT.with_borrow_mut(|c| {
            if let Some(effects) = c.traces.last_mut() {
                effects.push(tensor.clone());
            }
        });
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|c| match self {
            Frame::Named => c.location = None,
            Frame::Scope(outer) => c.scope = outer.clone(),
        });
    }
}

/// A function being traced: scopes inside it start anew and lines are the user's.
pub(crate) struct Traced {
    scope: Arc<str>,
    location: Option<&'static Location<'static>>,
}

impl Traced {
    pub fn begin() -> Self {
        CURRENT.with_borrow_mut(|c| {
            c.traces.push(Vec::new());
            Traced {
                scope: std::mem::replace(&mut c.scope, "".into()),
                location: c.location.take(),
            }
        })
    }

    /// Operations with effects recorded since the beginning.
    pub fn effects(&self) -> Vec<Tensor> {
        CURRENT.with_borrow(|c| c.traces.last().cloned().unwrap_or_default())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let effects = CURRENT.with_borrow_mut(|c| {
            c.scope = std::mem::replace(&mut self.scope, "".into());
            c.location = self.location;
            c.traces.pop()
        });
        drop(effects);
    }
}
