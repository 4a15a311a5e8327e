//! `#[derive(Tree)]` and `#[derive(Module)]`.
//!
//! Both walk through the fields of a struct in order. `#[module(name = "…")]` renames a field in
//! paths (an empty name adds nothing to the path), `#[module(skip)]` leaves it out: it is cloned.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Member, parse_macro_input};

/// Implements `ferrata::Tree` field by field. Enums and unions are not supported.
#[proc_macro_derive(Tree, attributes(module))]
pub fn tree(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input, false).unwrap_or_else(Error::into_compile_error).into()
}

/// Implements `ferrata::Module`, and `ferrata::Tree` in which a tensor that occurs twice is one
/// parameter.
#[proc_macro_derive(Module, attributes(module))]
pub fn module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input, true).unwrap_or_else(Error::into_compile_error).into()
}

/// What the attributes of a field say.
struct Options {
    name: String,
    skip: bool,
}

fn options(field: &Field, member: &Member) -> Result<Options, Error> {
    let name = match member {
        Member::Named(name) => name.to_string().trim_start_matches("r#").to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    };
    let mut options = Options { name, skip: false };
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("module")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                options.name = meta.value()?.parse::<LitStr>()?.value();
                return Ok(());
            }
            if meta.path.is_ident("skip") {
                options.skip = true;
                return Ok(());
            }
            Err(meta.error("unknown option; use `name = \"…\"` or `skip`"))
        })?;
    }
    Ok(options)
}

fn implement(input: &DeriveInput, module: bool) -> Result<Tokens, Error> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.span(), "only structs can be derived"));
    };
    let mut visits = Vec::new();
    let mut parts = Vec::new();
    let mut generics = input.generics.clone();
    let type_parameters: Vec<_> = input.generics.type_params().map(|p| p.ident.clone()).collect();
    for (field, member) in data.fields.iter().zip(data.fields.members()) {
        let Options { name, skip } = options(field, &member)?;
        if skip {
            parts.push(quote!(#member: ::core::clone::Clone::clone(&self.#member)));
            continue;
        }
        let name = LitStr::new(&name, Span::call_site());
        visits.push(quote!(visitor.field(#name, &self.#member);));
        parts.push(quote!(#member: ::ferrata::Tree::rebuild(&self.#member, f)));
    }
    if !type_parameters.is_empty() {
        let clause = generics.make_where_clause();
        for parameter in &type_parameters {
            clause.predicates.push(syn::parse_quote!(#parameter: ::ferrata::Tree));
        }
    }
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let body = match (&data.fields, module) {
        (Fields::Unit, _) => quote!(),
        (_, true) => quote!(visitor.module(|visitor| { #(#visits)* });),
        (_, false) => quote!(#(#visits)*),
    };
    let as_module = module.then(|| {
        quote! {
            impl #impl_generics ::ferrata::Module for #name #type_generics #where_clause {}
        }
    });
    Ok(quote! {
        impl #impl_generics ::ferrata::Tree for #name #type_generics #where_clause {
            #[allow(unused_variables)]
            fn visit(&self, visitor: &mut ::ferrata::tree::Visitor<'_>) {
                #body
            }

            #[allow(unused_variables)]
            fn rebuild(
                &self,
                f: &mut dyn ::core::ops::FnMut(&::ferrata::Tensor) -> ::ferrata::Tensor,
            ) -> Self {
                #name { #(#parts),* }
            }
        }
        #as_module
    })
}
