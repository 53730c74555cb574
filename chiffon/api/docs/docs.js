"use strict";
// Shows openapi.json, and sends requests. Everything is set as text, so that no description can be markup.

const METHODS = ["get", "post", "put", "patch", "delete"];

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  node.append(...children);
  return node;
}

// The schema with its references put in their place; a reference that leads back to itself stays.
function resolved(document_, schema, seen = []) {
  if (schema === null || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map((item) => resolved(document_, item, seen));
  if (typeof schema.$ref === "string") {
    if (seen.includes(schema.$ref)) return schema;
    const found = schema.$ref.slice(2).split("/").reduce((node, step) => node[step], document_);
    return resolved(document_, found, [...seen, schema.$ref]);
  }
  return Object.fromEntries(Object.entries(schema).map(([name, member]) => [name, resolved(document_, member, seen)]));
}

function typeOf(schema) {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items || {})}[]`;
  const limits = ["minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "maxItems"]
    .filter((name) => schema[name] !== undefined).map((name) => `${name} ${schema[name]}`);
  return [schema.format || schema.type || "any", ...limits].join(", ");
}

function row(name, isRequired, schema, description) {
  const code = make("code", name);
  if (isRequired) code.className = "required";
  const told = [description, schema.default === undefined ? "" : `Default: ${JSON.stringify(schema.default)}.`];
  return make("tr", null, make("td", null, code), make("td", typeOf(schema)), make("td", told.filter(Boolean).join(" ")));
}

function membersOf(schema) {
  const required = schema.required || [];
  const rows = Object.entries(schema.properties || {})
    .map(([name, member]) => row(name, required.includes(name), member, member.description || ""));
  return make("table", null, ...rows);
}

function example(schema) {
  const members = Object.entries(schema.properties || {})
    .filter(([name, member]) => member.examples || (schema.required || []).includes(name))
    .map(([name, member]) => [name, member.examples ? member.examples[0] : member.type === "array" ? [] : ""]);
  return JSON.stringify(Object.fromEntries(members), null, 2);
}

function sender(method, path, parameters, body) {
  const form = make("form", null);
  const fields = parameters.map((parameter) => {
    const input = make("input", null);
    input.required = Boolean(parameter.required);
    form.append(make("p", null, make("label", `${parameter.name} (${parameter.in}) `, input)));
    return { parameter, input };
  });
  const text = body ? make("textarea", example(body)) : null;
  if (text) form.append(text);
  const answer = make("pre", "");
  answer.hidden = true;
  form.append(make("p", null, make("button", "Send")), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = {};
    const query = new URLSearchParams();
    let url = path;
    for (const { parameter, input } of fields) {
      if (input.value === "") continue;
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (parameter.in === "query") query.set(parameter.name, input.value);
      else headers[parameter.name] = input.value;
    }
    const key = document.getElementById("key").value;
    if (key) headers.Authorization = `Bearer ${key}`;
    if (text) headers["Content-Type"] = "application/json";
    const where = url.slice(1) + (query.size ? `?${query}` : "");
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const response = await fetch(where, { method: method.toUpperCase(), headers, body: text ? text.value : undefined });
      const said = await response.text();
      let shown = said;
      try { shown = JSON.stringify(JSON.parse(said), null, 2); } catch { /* not JSON: as it came */ }
      answer.textContent = `${response.status} ${response.statusText}\n\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  return form;
}

function operation(document_, path, method, about) {
  const parameters = about.parameters || [];
  const content = about.requestBody && about.requestBody.content["application/json"];
  const body = content ? resolved(document_, content.schema) : null;
  const inside = make("div", null);
  if (about.description) inside.append(make("p", about.description));
  if (parameters.length) {
    const rows = parameters.map((p) => row(p.name, p.required, resolved(document_, p.schema || {}), `${p.in}. ${p.description || ""}`));
    inside.append(make("h4", "Parameters"), make("table", null, ...rows));
  }
  if (body) inside.append(make("h4", "Body"), membersOf(body));
  const answers = Object.entries(about.responses).map(([status, answer]) =>
    make("tr", null, make("td", null, make("code", status)), make("td", answer.description)));
  inside.append(make("h4", "Answers"), make("table", null, ...answers), make("h4", "Try it"), sender(method, path, parameters, body));
  return make("details", null, make("summary", null, make("b", method), make("code", path), make("span", about.summary || "")), inside);
}

async function show() {
  const main = document.getElementById("operations");
  const document_ = await (await fetch("openapi.json")).json();
  document.getElementById("version").textContent = document_.info.version;
  const sections = document_.tags.map((tag) => {
    const shown = [];
    for (const [path, methods] of Object.entries(document_.paths)) {
      for (const method of METHODS) {
        const about = methods[method];
        if (!about || !(about.tags || []).includes(tag.name)) continue;
        if ((about.security || []).length) document.getElementById("key-label").hidden = false;
        shown.push(operation(document_, path, method, about));
      }
    }
    return make("section", null, make("h2", tag.name), make("p", tag.description || ""), ...shown);
  });
  main.replaceChildren(...sections);
}

show().catch((error) => { document.getElementById("operations").textContent = `openapi.json cannot be shown: ${error}`; });
