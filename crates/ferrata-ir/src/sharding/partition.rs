//! The program of one rank: the nodes of the whole program on local shapes, with collectives
//! between them.

use super::combine::{self, Combined};
use super::cost::Rates;
use super::local::{Cuts, Place};
use super::pattern::{Linear, pattern};
use super::propagate::{Intents, Level, Propagation, Wish, Wishes};
use super::stages::Staged;
use super::{ContextParallel, Cut, Mesh, Names, Schedule, Sharding, Stage, reshard};
use crate::error::{Error, Origin, Result};
use crate::primitive::elementwise::ADD;
use crate::primitive::{Barrier, Call, Cond, Constant, Elementwise, Primitive, ReduceKind, Scan};
use crate::program::{Builder, Function, Node, Value};
use crate::types::Type;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How a parameter of a program lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// What each rank holds.
    pub sharding: Sharding,
    /// Axes that cut it only to save memory: where it is used it is gathered, and the work is not
    /// cut like that.
    pub stored: Vec<usize>,
    /// Whether it is a weight: the way in which weights are cut weighs more than that of data.
    pub weight: bool,
}

impl Placement {
    /// Data that lies so.
    pub fn data(sharding: Sharding) -> Placement {
        Placement { sharding, stored: Vec::new(), weight: false }
    }

    /// A weight that lies so, and whether some of its axes only save memory.
    pub fn weight(sharding: Sharding, stored: &[usize]) -> Placement {
        Placement { sharding, stored: stored.to_vec(), weight: true }
    }

    fn wishes(&self) -> Wishes {
        let level = |cut: &Cut| match () {
            () if cut.axes.iter().any(|axis| self.stored.contains(axis)) => Level::Stored,
            () if self.weight => Level::Weight,
            () => Level::Data,
        };
        let wish = |cut: &Cut| (!cut.is_whole()).then(|| (cut.clone(), level(cut)));
        self.sharding.cuts.iter().map(wish).collect()
    }
}

/// A value that is moved: a named edge of the program.
#[derive(Clone, Debug)]
pub struct Reshard {
    /// The operation that wants it otherwise.
    pub wanted_by: String,
    /// Its scope and line.
    pub origin: Origin,
    /// The whole value.
    pub ty: Type,
    /// How it lies.
    pub from: Sharding,
    /// How it is wanted.
    pub to: Sharding,
    /// Bytes that a rank sends.
    pub bytes: f64,
    /// Seconds that this takes.
    pub seconds: f64,
    /// How often it happens there: more than once in loops; not at all in the branch of a choice
    /// that is not counted.
    pub times: usize,
}

/// A mesh, and what is said of it.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The mesh.
    pub mesh: &'a Mesh,
    /// Which axes cut dimensions with a name.
    pub names: &'a Names,
    /// What computing and sending costs.
    pub rates: Rates,
    /// How stages work on the iterations of a loop that goes over several of them.
    pub schedule: Schedule,
    /// Whether what loops sum is cut along the axes that cut their iterations, if it is wanted cut:
    /// this saves memory, but sends something in each iteration. Else ranks keep sums of their own
    /// and combine them once.
    pub cut_sums: bool,
    /// How attention works where positions are cut, if it can work so.
    pub context: ContextParallel,
}

/// The program of one rank.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Takes the rank's parts of the parameters and gives its parts of the results.
    pub program: Arc<Function>,
    /// How the results lie.
    pub results: Vec<Sharding>,
    /// Every value that is moved, in the order of the program, once for each call.
    pub reshards: Vec<Reshard>,
}

/// Cuts the program of `rank` out of a whole program, with these parameters and, where given,
/// results. Results that nothing is said of lie as it comes, but never partial.
///
/// Where parameters lie on stages, every node runs on one of them, and loops that go over several
/// stages are unrolled: their iterations follow each other through the stages as `schedule` says.
///
/// ```
/// use ferrata_ir::sharding::{
///     ContextParallel, Mesh, Names, Placement, Rates, Schedule, Setting, Sharding, partition,
/// };
/// use ferrata_ir::{Builder, DType, Type};
/// use std::sync::Arc;
/// // A product whose contracted dimension is cut: every rank has a partial sum.
/// let mut b = Builder::new("product");
/// let x = b.parameter(Type::new(DType::F32, [4, 8]));
/// let y = b.parameter(Type::new(DType::F32, [8, 2]));
/// let z = b.matmul(x, y);
/// let program = Arc::new(b.finish(&[z])?);
/// let mesh = Mesh::new([("tensor", 2)])?;
/// let parameters = [Sharding::along(&[&[], &[0]]), Sharding::along(&[&[0], &[]])];
/// let parameters = parameters.map(Placement::data);
/// let names = Names::new();
/// let rates = Rates::default();
/// let (schedule, context) = (Schedule::default(), ContextParallel::default());
/// let (names, cut_sums) = (&names, false);
/// let setting = Setting { mesh: &mesh, names, rates, schedule, cut_sums, context };
/// let part = partition(&program, &setting, 1, &parameters, &[None])?;
/// assert_eq!(part.program.parameter_types()[0].shape, [4, 4]);
/// assert!(part.program.nodes().iter().any(|node| node.op.name() == "all_reduce"));
/// # Ok::<(), ferrata_ir::Error>(())
/// ```
///
/// # Errors
/// When a parameter or result cannot lie so, or a node cannot be cut: names scope and line.
pub fn partition(
    program: &Arc<Function>,
    setting: &Setting,
    rank: usize,
    parameters: &[Placement],
    results: &[Option<Sharding>],
) -> Result<Partition> {
    let mesh = setting.mesh;
    for (i, (placement, ty)) in parameters.iter().zip(program.parameter_types()).enumerate() {
        let checked = placement.sharding.check(mesh, ty);
        checked.map_err(|e| Error::new(format!("parameter {i}: {e}")))?;
    }
    let wants = results.iter().zip(program.result_types()).enumerate().map(|(i, (want, ty))| {
        let Some(sharding) = want else {
            return Ok(Want { wishes: vec![None; ty.rank()], exact: None, whole: true });
        };
        sharding.check(mesh, ty).map_err(|e| Error::new(format!("result {i}: {e}")))?;
        let wishes = Placement::data(sharding.clone()).wishes();
        // Whatever cuts a result that is as large as a weight, it need not cut the work.
        let wishes = wishes.into_iter().map(|w| w.map(|(cut, _)| (cut, Level::Stored)));
        Ok(Want { wishes: wishes.collect(), exact: Some(sharding.clone()), whole: true })
    });
    let wants: Vec<Want> = wants.collect::<Result<_>>()?;
    let mut partitioner = Partitioner {
        place: Place { mesh, rank },
        rates: setting.rates,
        cut_sums: setting.cut_sums,
        context: setting.context,
        propagation: Propagation::new(mesh, setting.names),
        known: HashMap::new(),
    };
    let given = parameters.iter().map(|placement| &placement.sharding);
    let given: Vec<&Sharding> = given.chain(results.iter().flatten()).collect();
    let made = if let Some(stage) = given.iter().find_map(|sharding| sharding.stage) {
        let one = |sharding: &&Sharding| {
            !sharding.cuts_along(stage.axis) && sharding.stage.is_none_or(|s| s.axis == stage.axis)
        };
        let named = setting.names.values().any(|named| named.axes.contains(&stage.axis));
        if named || !given.iter().all(one) {
            let name = &mesh.axes[stage.axis].0;
            return Err(Error::new(format!("the axis `{name}` has stages, but not it alone"))
                .help("keep one axis for stages, and let other axes cut dimensions"));
        }
        let lying: Vec<_> = results.iter().map(|want| want.as_ref().map(|s| s.stage)).collect();
        let staged = Staged::new(program, setting, stage.axis, parameters, &lying)?;
        Arc::new(partitioner.build(&staged.program, parameters, &wants, &staged.stages)?)
    } else {
        partitioner.function(program, parameters, &wants)?
    };
    let results = made.results.iter().map(|lie| lie.sharding.clone()).collect();
    Ok(Partition { program: made.function.clone(), results, reshards: made.reshards.clone() })
}

/// For each value whether some node cannot do with its partial sums.
fn needed_combined(function: &Function) -> Vec<bool> {
    let mut needed = vec![false; function.value_count()];
    for node in function.nodes() {
        let types =
            |values: &[Value]| -> Vec<&Type> { values.iter().map(|&v| function.ty(v)).collect() };
        let linear = pattern(&node.op, &types(&node.inputs), &types(&node.outputs));
        for (i, v) in node.inputs.iter().enumerate() {
            let partial = match linear.as_ref().map(|pattern| pattern.linear) {
                Some(Linear::First) => i == 0,
                Some(Linear::All) => true,
                Some(Linear::Either) => node.inputs[0] != node.inputs[1],
                Some(Linear::No) | None => false,
            };
            needed[v.index()] |= !partial;
        }
    }
    needed
}

/// The constants of a function.
fn constants(function: &Function) -> HashMap<Value, &Constant> {
    let constants = function.nodes().iter().filter_map(|node| match &node.op {
        Primitive::Constant(constant) => Some((node.outputs[0], constant)),
        _ => None,
    });
    constants.collect()
}

/// The carries of a loop that every iteration only adds to.
fn sums(scan: &Scan) -> Vec<usize> {
    let body = &scan.body;
    let mut uses = vec![0; body.value_count()];
    let inputs = body.nodes().iter().flat_map(|node| &node.inputs);
    inputs.chain(body.results()).for_each(|v| uses[v.index()] += 1);
    let adds = |node: &&Node| node.op == Elementwise(&ADD).into();
    let added: HashMap<Value, &[Value]> =
        body.nodes().iter().filter(adds).map(|n| (n.outputs[0], n.inputs.as_slice())).collect();
    let (_, carries, _) = scan.parts(body.parameters());
    let is_sum = |&i: &usize| {
        let (before, after) = (carries[i], body.results()[i]);
        let once = uses[before.index()] == 1 && uses[after.index()] == 1;
        once && added.get(&after).is_some_and(|terms| terms.contains(&before))
    };
    (0..carries.len()).filter(is_sum).collect()
}

/// What is wanted of a result of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Want {
    wishes: Wishes,
    /// Just this.
    exact: Option<Sharding>,
    /// Never partial.
    whole: bool,
}

impl Want {
    /// Just this, of a callee, which knows no stages.
    fn just(lies: Sharding) -> Want {
        let lies = Sharding { stage: None, ..lies };
        let wishes = Placement::data(lies.clone()).wishes();
        Want { wishes, exact: Some(lies), whole: false }
    }
}

/// A function of one rank.
struct Made {
    function: Arc<Function>,
    results: Vec<Placement>,
    /// Whether it is the same function on smaller shapes.
    same: bool,
    /// What is moved in it and in what it calls.
    reshards: Vec<Reshard>,
}

/// What is asked for: a function, its parameters and wants.
type Question = (*const Function, Vec<Placement>, Vec<Want>);

pub(super) struct Partitioner<'a> {
    pub place: Place<'a>,
    pub rates: Rates,
    cut_sums: bool,
    pub context: ContextParallel,
    propagation: Propagation<'a>,
    known: HashMap<Question, Arc<Made>>,
}

/// A value of the whole program in one of the ways that it lies by now.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub lies: Placement,
    /// None on ranks that are not on its stage.
    pub value: Option<Value>,
}

/// How versions lie for a callee, which knows no stages, and their values, if all are here.
fn apart(versions: Vec<Version>) -> (Vec<Placement>, Option<Vec<Value>>) {
    let values = versions.iter().map(|version| version.value).collect();
    let lies = versions.into_iter().map(|version| {
        let mut lies = version.lies;
        lies.sharding.stage = None;
        lies
    });
    (lies.collect(), values)
}

/// A function while it is being built.
pub(super) struct Body<'f> {
    pub whole: &'f Function,
    pub b: Builder,
    /// For each value of the whole function, the first being the one that was computed.
    pub versions: Vec<Vec<Version>>,
    pub intents: Arc<Intents>,
    /// Constants, which are made anew however they are wanted.
    constants: HashMap<Value, &'f Constant>,
    /// For each value whether a node needs it combined, so that it may as well be so for all.
    pub needed: Vec<bool>,
    pub same: bool,
    /// For each value behind how many nodes it is known.
    known: Vec<usize>,
    /// What is combined over ranks.
    combined: Vec<Combined>,
    /// The node that is being built, and how many come before it.
    pub node: String,
    at: usize,
    /// Where it runs.
    pub stage: Option<Stage>,
    /// Whether that is here.
    pub here: bool,
    pub reshards: Vec<Reshard>,
}

impl Body<'_> {
    pub fn set(&mut self, v: Value, lies: Placement, value: Option<Value>) {
        self.versions[v.index()] = vec![Version { lies, value }];
        self.known[v.index()] = self.at + 1;
    }

    pub fn ty(&self, v: Value) -> &Type {
        self.whole.ty(v)
    }

    /// Runs `op` where its operands are; its results lie so, on the stage of the node.
    fn emit(
        &mut self,
        outputs: &[Value],
        op: impl Into<Primitive>,
        operands: Option<Vec<Value>>,
        lies: impl IntoIterator<Item = Placement>,
    ) {
        let here = operands.filter(|_| self.here);
        let values = here.map(|operands| self.b.emit(op, &operands));
        for (i, (&v, mut lies)) in outputs.iter().zip(lies).enumerate() {
            lies.sharding.stage = self.stage;
            self.set(v, lies, values.as_ref().map(|values| values[i]));
        }
    }

    /// A sharding with these cuts on the stage of the node.
    fn whole_sums(&self, cuts: Vec<Cut>) -> Sharding {
        Sharding { cuts, partial: Vec::new(), stage: self.stage }
    }

    /// Takes over what is said of a function that a node runs so many times.
    fn takes(&mut self, node: &Node, made: &Made, times: usize) {
        self.same &= made.same;
        self.reshards.extend(made.reshards.iter().map(|edge| Reshard {
            origin: node.origin.enter(&edge.origin),
            times: edge.times * times,
            ..edge.clone()
        }));
    }

    pub fn first(&self, v: Value) -> &Version {
        &self.versions[v.index()][0]
    }
}

impl<'a> Partitioner<'a> {
    pub fn mesh(&self) -> &'a Mesh {
        self.place.mesh
    }

    fn function(
        &mut self,
        function: &Arc<Function>,
        parameters: &[Placement],
        wants: &[Want],
    ) -> Result<Arc<Made>> {
        let question = (Arc::as_ptr(function), parameters.to_vec(), wants.to_vec());
        if let Some(made) = self.known.get(&question) {
            return Ok(made.clone());
        }
        let made = Arc::new(self.build(function, parameters, wants, &[])?);
        self.known.insert(question, made.clone());
        Ok(made)
    }

    /// The function of this rank; its nodes run on these stages.
    fn build(
        &mut self,
        function: &Arc<Function>,
        parameters: &[Placement],
        wants: &[Want],
        stages: &[Option<Stage>],
    ) -> Result<Made> {
        let of_parameters: Vec<Wishes> = parameters.iter().map(Placement::wishes).collect();
        let of_results: Vec<Wishes> = wants.iter().map(|want| want.wishes.clone()).collect();
        let intents = self.propagation.intents(function, &of_parameters, &of_results);
        let mut body = Body {
            whole: function,
            b: Builder::new(function.name.clone()),
            versions: vec![Vec::new(); function.value_count()],
            intents,
            constants: constants(function),
            needed: needed_combined(function),
            same: true,
            known: vec![0; function.value_count()],
            combined: Vec::new(),
            node: "the results".to_owned(),
            at: 0,
            stage: None,
            here: true,
            reshards: Vec::new(),
        };
        for (&p, lies) in function.parameters().iter().zip(parameters) {
            let ty = lies.sharding.local(self.mesh(), function.ty(p), self.place.rank);
            let value = body.b.parameter(ty);
            let here = self.mesh().is_on(self.place.rank, lies.sharding.stage);
            body.set(p, lies.clone(), here.then_some(value));
        }
        for (i, node) in function.nodes().iter().enumerate() {
            body.stage = stages.get(i).copied().flatten();
            body.here = self.mesh().is_on(self.place.rank, body.stage);
            body.b.set_origin(node.origin.clone());
            (body.node, body.at) = (node.op.name().to_owned(), i);
            self.node(&mut body, node).map_err(|e| {
                let types: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
                e.at(node.op.name(), &types, &node.origin)
            })?;
        }
        (body.node, body.at) = ("the results".to_owned(), function.nodes().len());
        body.b.set_origin(Origin::default());
        let mut results = Vec::new();
        let mut values = Vec::new();
        for (&v, want) in function.results().iter().zip(wants) {
            let target = match &want.exact {
                Some(exact) => exact.clone(),
                None => self.as_it_comes(&body, v, want),
            };
            let version = self.version(&mut body, v, &target);
            let ty = function.ty(v);
            values.push(version.value.unwrap_or_else(|| self.place.nothing(&mut body.b, ty)));
            results.push(version.lies);
        }
        let mut made = combine::together(body.b.finish(&values)?, &body.combined)?;
        if body.same && results.iter().all(|lies| lies.sharding.partial.is_empty()) {
            made.composite = function.composite.clone();
        }
        crate::transform::prune(&mut made);
        combine::early(&mut made);
        Ok(Made { function: Arc::new(made), results, same: body.same, reshards: body.reshards })
    }

    /// How a result lies that is not wanted otherwise: partial sums go to where they are wanted
    /// cut, and else may wait, unless nobody is there to combine them.
    fn as_it_comes(&self, body: &Body, v: Value, want: &Want) -> Sharding {
        let lies = &body.first(v).lies.sharding;
        let mut target = Sharding { partial: Vec::new(), ..lies.clone() };
        for &(axis, kind) in &lies.partial {
            let wanted = want
                .wishes
                .iter()
                .position(|wish| wish.as_ref().is_some_and(|(cut, _)| cut.axes == [axis]));
            match wanted {
                Some(d) if target.cuts[d].is_whole() && !target.cuts_along(axis) => {
                    if let Some((cut, _)) = &want.wishes[d] {
                        target.cuts[d] = cut.clone();
                    }
                }
                _ if kind == ReduceKind::Sum && !want.whole => target.partial.push((axis, kind)),
                _ => {}
            }
        }
        target
    }

    /// A version of a value that lies as `target`, made from the nearest one there is.
    fn version(&mut self, body: &mut Body, v: Value, target: &Sharding) -> Version {
        let all = &body.versions[v.index()];
        if let Some(found) = all.iter().find(|x| x.lies.sharding == *target) {
            return found.clone();
        }
        let ty = body.whole.ty(v);
        if let Some(&constant) = body.constants.get(&v)
            && (target.partial.is_empty() || constant.value.as_f64() == 0.0)
        {
            let ty = target.local(self.mesh(), ty, self.place.rank);
            let here = self.mesh().is_on(self.place.rank, target.stage);
            let value = here.then(|| body.b.emit1(Constant { ty, ..constant.clone() }, &[]));
            let version = Version { lies: Placement::data(target.clone()), value };
            body.versions[v.index()].push(version.clone());
            return version;
        }
        let cost =
            |x: &Version| reshard::cost(self.mesh(), &self.rates, ty, &x.lies.sharding, target).1;
        let Some(from) = all.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).cloned() else {
            unreachable!("every value has a version");
        };
        let before = body.b.nodes().len();
        let value = self.place.reshard(&mut body.b, from.value, ty, &from.lies.sharding, target);
        for node in &body.b.nodes()[before..] {
            if matches!(node.op, Primitive::AllReduce(_)) {
                let computed = body.first(v).value == Some(node.inputs[0]);
                let known = if computed { body.known[v.index()] } else { body.at + 1 };
                body.combined.push(Combined { value: node.outputs[0], known, wanted: body.at });
            }
        }
        let (bytes, seconds) =
            reshard::cost(self.mesh(), &self.rates, ty, &from.lies.sharding, target);
        if bytes > 0.0 {
            body.reshards.push(Reshard {
                wanted_by: body.node.clone(),
                origin: body.b.origin().clone(),
                ty: ty.clone(),
                from: from.lies.sharding.clone(),
                to: target.clone(),
                bytes,
                seconds,
                times: 1,
            });
        }
        body.same = false;
        let stored = from.lies.stored.iter().filter(|&&axis| target.cuts_along(axis)).copied();
        let lies = Placement {
            sharding: target.clone(),
            stored: stored.collect(),
            weight: from.lies.weight,
        };
        let version = Version { lies, value };
        body.versions[v.index()].push(version.clone());
        version
    }

    fn node(&mut self, body: &mut Body, node: &Node) -> Result<()> {
        match &node.op {
            Primitive::Barrier(_) => {
                let (lies, values) = apart(self.all_ready(body, &node.inputs));
                body.emit(&node.outputs, Barrier {}, values, lies);
                Ok(())
            }
            Primitive::Call(call) => self.call(body, node, call),
            Primitive::Scan(scan) => self.scan(body, node, scan),
            Primitive::Cond(cond) => self.cond(body, node, cond),
            Primitive::Annotate(named) => {
                self.annotated(body, node, &named.names);
                Ok(())
            }
            op if op.is_collective() => Err(Error::new("this program is already that of one rank")),
            _ => self.loops(body, node),
        }
    }

    /// A value whose dimensions have names lies as these say.
    fn annotated(&mut self, body: &mut Body, node: &Node, names: &str) {
        let v = node.inputs[0];
        let wishes = self.propagation.named(names, body.ty(v));
        let cut = |wish: Wish| wish.map_or_else(Cut::whole, |(cut, _)| cut);
        let cuts: Vec<Cut> = wishes.into_iter().map(cut).collect();
        // Where the names say nothing of any dimension, the value lies as it comes.
        let target = match cuts.iter().all(Cut::is_whole) {
            true => Sharding { stage: body.stage, ..body.first(v).lies.sharding.clone() },
            false => body.whole_sums(cuts),
        };
        let version = self.version(body, v, &target);
        body.set(node.outputs[0], version.lies, version.value);
    }

    /// A value as a callee gets it: not partial, and cut where it is wanted cut and nothing has
    /// to be sent for that.
    fn ready(&mut self, body: &mut Body, v: Value) -> Version {
        let lies = &body.first(v).lies.sharding;
        let mut target = body.whole_sums(lies.cuts.clone());
        for (d, wish) in body.intents.of(v).iter().enumerate() {
            let Some((cut, level)) = wish else { continue };
            let free = cut.axes.iter().all(|&axis| !target.cuts_along(axis));
            let partial = |axis: &usize| lies.partial.iter().any(|(a, _)| a == axis);
            let asked = *level > Level::Stored || cut.axes.iter().all(partial);
            if free && asked && target.cuts[d].is_whole() {
                target.cuts[d] = cut.clone();
            }
        }
        self.version(body, v, &target)
    }

    fn all_ready(&mut self, body: &mut Body, values: &[Value]) -> Vec<Version> {
        values.iter().map(|&v| self.ready(body, v)).collect()
    }

    fn wants(&self, body: &Body, outputs: &[Value]) -> Vec<Want> {
        let want =
            |&v: &Value| Want { wishes: body.intents.of(v).clone(), exact: None, whole: false };
        outputs.iter().map(want).collect()
    }

    fn call(&mut self, body: &mut Body, node: &Node, call: &Call) -> Result<()> {
        let way = self.attention(body, node, call)?;
        let versions: Vec<Version> = match &way {
            Some(way) => {
                let operands = node.inputs.iter().zip(&way.operands);
                operands.map(|(&v, target)| self.version(body, v, target)).collect()
            }
            None => self.all_ready(body, &node.inputs),
        };
        if let Some((way, ring)) = way.as_ref().and_then(|way| Some((way, way.ring.as_ref()?))) {
            let values = versions.iter().map(|version| version.value).collect();
            return self.ring(body, node, way, ring, values);
        }
        let (lies, values) = apart(versions);
        let wants = match way {
            Some(way) => way.results.into_iter().map(Want::just).collect(),
            None => self.wants(body, &node.outputs),
        };
        let made = self.function(&call.function, &lies, &wants)?;
        body.takes(node, &made, 1);
        let op = Call { function: made.function.clone(), recompute: call.recompute };
        body.emit(&node.outputs, op, values, made.results.clone());
        Ok(())
    }

    fn scan(&mut self, body: &mut Body, node: &Node, scan: &Scan) -> Result<()> {
        let whole = scan.constants + scan.carries;
        let mut versions = Vec::new();
        for (i, &v) in node.inputs.iter().enumerate() {
            let mut version = self.ready(body, v);
            if i >= whole && !version.lies.sharding.cuts[0].is_whole() {
                let mut target = version.lies.sharding.clone();
                target.cuts[0] = Cut::whole();
                version = self.version(body, v, &target);
            }
            versions.push(version);
        }
        // What is summed over the iterations stays partial where they are cut, and is combined once.
        let cuts = versions[whole..].iter().flat_map(|x| &x.lies.sharding.cuts);
        let samples: BTreeSet<usize> = cuts.flat_map(|cut| cut.axes.clone()).collect();
        for i in sums(scan).into_iter().map(|i| scan.constants + i) {
            let mut target = versions[i].lies.sharding.clone();
            let by_samples = |cut: &Cut| cut.axes.iter().any(|axis| samples.contains(axis));
            if !self.cut_sums {
                let cuts = target.cuts.iter_mut().filter(|cut| by_samples(cut));
                cuts.for_each(|cut| *cut = Cut::whole());
            }
            let free = samples.iter().filter(|&&axis| !target.cuts_along(axis));
            target.partial = free.map(|&axis| (axis, ReduceKind::Sum)).collect();
            versions[i] = self.version(body, node.inputs[i], &target);
        }
        let (mut lies, values) = apart(versions);
        for stacked in &mut lies[whole..] {
            stacked.sharding.cuts.remove(0);
        }
        let carries = &lies[scan.constants..whole];
        let mut wants = self.wants(body, &node.outputs);
        for (i, want) in wants.iter_mut().enumerate() {
            want.whole = true;
            match carries.get(i) {
                Some(carry) => {
                    let cuts = want.wishes.iter_mut().zip(&carry.sharding.cuts);
                    cuts.filter(|(_, cut)| cut.is_whole()).for_each(|(wish, _)| *wish = None);
                    want.exact = Some(carry.sharding.clone());
                }
                None => {
                    want.wishes.remove(0);
                }
            }
        }
        let made = self.function(&scan.body, &lies, &wants)?;
        body.takes(node, &made, scan.length);
        let op = Scan { body: made.function.clone(), ..scan.clone() };
        let mut lies = made.results.clone();
        for stacked in &mut lies[scan.carries..] {
            stacked.sharding.cuts.insert(0, Cut::whole());
        }
        body.emit(&node.outputs, op, values, lies);
        Ok(())
    }

    fn cond(&mut self, body: &mut Body, node: &Node, cond: &Cond) -> Result<()> {
        let condition = self.version(body, node.inputs[0], &body.whole_sums(Vec::new()));
        let (lies, values) = apart(self.all_ready(body, &node.inputs[1..]));
        // Both branches leave their results alike: as the first would.
        let mut wants = self.wants(body, &node.outputs);
        wants.iter_mut().for_each(|want| want.whole = true);
        let first = self.function(&cond.branches[0], &lies, &wants)?;
        for (want, lies) in wants.iter_mut().zip(&first.results) {
            want.exact = Some(lies.sharding.clone());
        }
        let [yes, no] = [&cond.branches[0], &cond.branches[1]]
            .map(|branch| self.function(branch, &lies, &wants));
        let (yes, no) = (yes?, no?);
        body.takes(node, &yes, 1);
        body.takes(node, &no, 0);
        let values = condition.value.zip(values).map(|(first, rest)| [vec![first], rest].concat());
        let op = Cond { branches: [yes.function.clone(), no.function.clone()] };
        let lies = yes.results.iter().map(|lies| Placement { stored: Vec::new(), ..lies.clone() });
        body.emit(&node.outputs, op, values, lies);
        Ok(())
    }

    fn loops(&mut self, body: &mut Body, node: &Node) -> Result<()> {
        let whole = body.whole;
        let types =
            |values: &[Value]| -> Vec<&Type> { values.iter().map(|&v| whole.ty(v)).collect() };
        let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
        let Some(pattern) = pattern(&node.op, &inputs, &outputs) else {
            return Err(Error::new("cannot be cut over a mesh"));
        };
        let best = self.choose(body, node, &pattern, None)?;
        let mut operands = Vec::new();
        for (&v, target) in node.inputs.iter().zip(&best.operands) {
            operands.push(self.version(body, v, target));
        }
        let assigned = &best.assigned;
        let cuts = Cuts { op: &node.op, pattern: &pattern, assigned, outputs: &outputs };
        let mut made = vec![None; outputs.len()];
        let values: Option<Vec<Value>> = operands.iter().map(|x| x.value).collect();
        if let Some(values) = values.filter(|_| body.here) {
            let (values, same) = self.place.emit(&mut body.b, &cuts, &values);
            body.same &= same;
            made = values.into_iter().map(Some).collect();
        }
        let has = |x: &Version, axis: usize| x.lies.sharding.cuts_along(axis);
        for ((&o, value), sharding) in node.outputs.iter().zip(made).zip(best.results) {
            let stored = |axis: &usize| {
                let mut with = operands.iter().filter(|x| has(x, *axis)).peekable();
                with.peek().is_some() && with.all(|x| x.lies.stored.contains(axis))
            };
            let axes = sharding.cuts.iter().flat_map(|cut| &cut.axes).copied();
            let stored = axes.filter(stored).collect();
            let weight = !operands.is_empty() && operands.iter().all(|x| x.lies.weight);
            body.set(o, Placement { sharding, stored, weight }, value);
        }
        Ok(())
    }
}
