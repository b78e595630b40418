"use strict";

/*
 * Accounts, logins, API keys and external libraries, as Immich's API has them: who is let in, then what is wrong with the
 * input, then what the database has. As in server/src/middleware/auth.guard.ts, services/auth.service.ts (commit 00c5bf5),
 * services/base.service.ts (03276de), services/user-admin.service.ts and dtos/user.dto.ts (00f83e7),
 * services/api-key.service.ts (2f547ba), services/library.service.ts and maintenance.service.ts (52605e8, v2.7.2) and
 * middleware/global-exception.filter.ts (0653cd9) of Immich.
 */

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const database = require("./database");

const EMAIL = /^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const EXCLUDED = ["**/@eaDir/**", "**/._*", "**/#recycle/**", "**/#snapshot/**", "**/.stversions/**", "**/.stfolder/**"];

const failure = (status, message) => [status, { message, statusCode: status }];

/** An answer in place of the one that a handler returns. */
class Refusal extends Error {
  constructor(status, message, errors) {
    super(message);
    this.answer = errors === undefined ? failure(status, message) : [status, { message, errors }];
  }
}

// -- what is sent ----------------------------------------

const string = { is: (value) => typeof value === "string", expects: "string" };
const boolean = { is: (value) => typeof value === "boolean", expects: "boolean" };
const email = { is: (value) => typeof value === "string" && EMAIL.test(value), message: "Invalid email address" };
const texts = { is: (value) => Array.isArray(value) && value.every((each) => typeof each === "string"), expects: "array" };
const uuid = { is: (value) => typeof value === "string" && UUID.test(value), message: "Invalid UUID" };
const bytes = { is: (value) => Number.isInteger(value) && value >= 0, expects: "int" };
const nullable = (kind) => ({ ...kind, is: (value) => value === null || kind.is(value) });

/** The known fields of a body. Those that are missing or wrong are an error, in the form of zod's issues. */
function checked(body, required, optional = {}) {
  const errors = [];
  const fields = {};
  for (const [name, kind] of Object.entries({ ...required, ...optional })) {
    const value = body?.[name];
    if (value === undefined && name in optional) {
      continue;
    }
    if (!kind.is(value)) {
      const message = kind.message ?? `Invalid input: expected ${kind.expects}, received ${value === null ? "null" : typeof value}`;
      errors.push({ code: "invalid_type", path: [name], message });
    }
    fields[name] = kind === email && typeof value === "string" ? value.toLowerCase() : value;
  }
  if (errors.length > 0) {
    throw new Refusal(400, "Validation failed", errors);
  }
  return fields;
}

// -- who asks ----------------------------------------

/** The stand-in's way to keep a password; Immich has bcrypt. */
function hash(password, salt = crypto.randomBytes(16).toString("hex")) {
  return `${salt}:${crypto.scryptSync(password, Buffer.from(salt, "hex"), 32).toString("hex")}`;
}

const sha256 = (text) => crypto.createHash("sha256").update(text).digest();
const randomText = () => crypto.randomBytes(32).toString("base64").replace(/\W/g, "");

async function validate(pool, headers) {
  const [, bearer] = /^Bearer (.+)$/i.exec(headers.authorization ?? "") ?? [];
  const token = headers["x-immich-user-token"] ?? headers["x-immich-session-token"] ?? bearer;
  const user = `u.id AS "userId", u."isAdmin"`;
  if (token !== undefined) {
    const session = await database.one(
      pool,
      `SELECT s.id AS session, ${user} FROM session s JOIN "user" u ON u.id = s."userId" WHERE s.token = $1 AND u."deletedAt" IS NULL`,
      [sha256(token)],
    );
    if (session === undefined) {
      throw new Refusal(401, "Invalid user token");
    }
    return session;
  }
  if (headers["x-api-key"] !== undefined) {
    const key = await database.one(
      pool,
      `SELECT k.id AS key, k.permissions, ${user} FROM api_key k JOIN "user" u ON u.id = k."userId"
       WHERE k.key = $1 AND u."deletedAt" IS NULL`,
      [sha256(headers["x-api-key"])],
    );
    if (key === undefined) {
      throw new Refusal(401, "Invalid API key");
    }
    return key;
  }
  throw new Refusal(401, "Authentication required");
}

const isGranted = (requested, current) => current.includes("all") || requested.every((each) => current.includes(each));

async function authenticate(pool, headers, { admin = false, permission = "all" } = {}) {
  const auth = await validate(pool, headers);
  if (admin && !auth.isAdmin) {
    throw new Refusal(403, "Forbidden");
  }
  if (auth.key !== undefined && !isGranted([permission], auth.permissions)) {
    throw new Refusal(403, `Missing required permission: ${permission}`);
  }
  return auth;
}

// -- sign-up and login ----------------------------------------

async function adminOf(pool) {
  return database.one(pool, `SELECT id FROM "user" WHERE "isAdmin" AND "deletedAt" IS NULL`);
}

const USER = `id, email, name, "isAdmin", "storageLabel", "shouldChangePassword", "createdAt", "updatedAt", "deletedAt", status,
  "quotaSizeInBytes"::float8 AS "quotaSizeInBytes", "quotaUsageInBytes"::float8 AS "quotaUsageInBytes", "oauthId", '' AS "profileImagePath"`;

async function createUser(pool, { password, storageLabel, ...fields }) {
  if (await database.one(pool, `SELECT 1 FROM "user" WHERE email = $1 AND "deletedAt" IS NULL`, [fields.email])) {
    throw new Refusal(400, "User exists");
  }
  if (!fields.isAdmin && !(await adminOf(pool))) {
    throw new Refusal(400, "The first registered account must the administrator.");
  }
  const row = { ...fields, password: hash(password), storageLabel: storageLabel?.replaceAll(".", "") ?? null };
  return insert(pool, "user", row, USER);
}

async function insert(pool, table, row, returning) {
  const names = Object.keys(row);
  const columns = names.map((name) => `"${name}"`).join(", ");
  const values = names.map((_, index) => `$${index + 1}`).join(", ");
  return database.one(pool, `INSERT INTO "${table}" (${columns}) VALUES (${values}) RETURNING ${returning}`, Object.values(row));
}

async function update(pool, table, id, row, returning) {
  const names = Object.keys(row);
  const sets = [...names.map((name, index) => `"${name}" = $${index + 2}`), `"updatedAt" = now()`].join(", ");
  return database.one(pool, `UPDATE "${table}" SET ${sets} WHERE id = $1 RETURNING ${returning}`, [id, ...Object.values(row)]);
}

async function signUp({ pool, settings }, { body }) {
  const fields = checked(body, { email, password: string, name: string });
  if (!settings.allowSetup) {
    throw new Refusal(400, "Admin setup is disabled");
  }
  if (await adminOf(pool)) {
    throw new Refusal(400, "The server already has an admin");
  }
  return [201, await createUser(pool, { ...fields, isAdmin: true, storageLabel: "admin" })];
}

/** Immich goes into maintenance mode then. With setup disabled its guard refuses (08d2911); which status was not read. */
async function startRestore({ pool, settings }) {
  if (!settings.allowSetup) {
    throw new Refusal(403, "Forbidden");
  }
  if (await adminOf(pool)) {
    throw new Refusal(400, "The server already has an admin");
  }
  await database.writeMetadata(pool, "maintenance-mode", { isMaintenanceMode: true });
  return [201];
}

async function login({ pool, settings }, { body }) {
  const fields = checked(body, { email, password: string });
  if (!settings.config.passwordLogin.enabled) {
    throw new Refusal(401, "Password login has been disabled");
  }
  const user = await database.one(pool, `SELECT ${USER}, password FROM "user" WHERE email = $1 AND "deletedAt" IS NULL`, [fields.email]);
  if (!user?.password || hash(fields.password, user.password.split(":")[0]) !== user.password) {
    throw new Refusal(401, "Incorrect email or password");
  }
  return [201, await startSession(pool, user)];
}

/** Write a session of an account down, and return the answer to the login that it is for. */
async function startSession(pool, user) {
  const accessToken = randomText();
  await pool.query(`INSERT INTO session (token, "userId") VALUES ($1, $2)`, [sha256(accessToken), user.id]);
  const { id, email: userEmail, name, isAdmin, shouldChangePassword } = user;
  return { accessToken, userId: id, userEmail, name, isAdmin, shouldChangePassword, profileImagePath: "", isOnboarded: false };
}

async function logout({ pool }, { auth }) {
  await pool.query("DELETE FROM session WHERE id = $1", [auth.session]);
  return [200, { successful: true, redirectUri: "/auth/login?autoLaunch=0" }];
}

// -- accounts ----------------------------------------

async function listUsers({ pool }, { query }) {
  const deleted = query.get("withDeleted") === "true" ? "" : `WHERE "deletedAt" IS NULL`;
  const { rows } = await pool.query(`SELECT ${USER} FROM "user" ${deleted} ORDER BY "createdAt" DESC`);
  return [200, rows];
}

const OPTIONAL = {
  storageLabel: nullable(string),
  quotaSizeInBytes: nullable(bytes),
  shouldChangePassword: boolean,
  isAdmin: boolean,
};

async function addUser({ pool }, { body }) {
  return [201, await createUser(pool, checked(body, { email, password: string, name: string }, OPTIONAL))];
}

async function findUser(pool, id, { deleted = false } = {}) {
  const user = await database.one(pool, `SELECT ${USER} FROM "user" WHERE id = $1`, [id]);
  if (user === undefined || (user.deletedAt !== null && !deleted)) {
    throw new Refusal(400, "User not found");
  }
  return user;
}

async function changeUser({ pool }, { auth, body, id }) {
  const fields = checked(body, {}, { email, password: string, name: string, ...OPTIONAL });
  await findUser(pool, id);
  if (fields.isAdmin !== undefined && fields.isAdmin !== auth.isAdmin && auth.userId === id) {
    throw new Refusal(400, "Admin status can only be changed by another admin");
  }
  for (const [name, words] of [["email", "Email"], ["storageLabel", "Storage label"]]) {
    const other = fields[name] && (await database.one(pool, `SELECT 1 FROM "user" WHERE "${name}" = $1 AND id <> $2`, [fields[name], id]));
    if (other) {
      throw new Refusal(400, `${words} already in use by another account`);
    }
  }
  if (fields.password !== undefined) {
    fields.password = hash(fields.password);
  }
  return [200, await update(pool, "user", id, fields, USER)];
}

async function deleteUser({ pool }, { auth, body, id }) {
  checked(body, {}, { force: boolean });
  await findUser(pool, id);
  if (auth.userId === id) {
    throw new Refusal(403, "Cannot delete your own account");
  }
  return [200, await update(pool, "user", id, { status: "deleted", deletedAt: new Date() }, USER)];
}

async function restoreUser({ pool }, { id }) {
  await findUser(pool, id, { deleted: true });
  return [200, await update(pool, "user", id, { status: "active", deletedAt: null }, USER)];
}

// -- API keys ----------------------------------------

const KEY = `id, name, "createdAt", "updatedAt", permissions`;

async function createKey({ pool }, { auth, body }) {
  const { name, permissions } = checked(body, { permissions: texts }, { name: string });
  if (auth.key !== undefined && !isGranted(permissions, auth.permissions)) {
    throw new Refusal(400, "Cannot grant permissions you do not have");
  }
  const secret = randomText();
  const row = { key: sha256(secret), name: name ?? "API Key", userId: auth.userId, permissions };
  return [201, { secret, apiKey: await insert(pool, "api_key", row, KEY) }];
}

async function listKeys({ pool }, { auth }) {
  const { rows } = await pool.query(`SELECT ${KEY} FROM api_key WHERE "userId" = $1 ORDER BY "createdAt" DESC`, [auth.userId]);
  return [200, rows];
}

async function deleteKey({ pool }, { auth, id }) {
  const { rowCount } = await pool.query(`DELETE FROM api_key WHERE id = $1 AND "userId" = $2`, [id, auth.userId]);
  if (rowCount === 0) {
    throw new Refusal(400, "API Key not found");
  }
  return [204];
}

// -- external libraries ----------------------------------------

const LIBRARY = `id, name, "ownerId", "importPaths", "exclusionPatterns", "createdAt", "updatedAt", "refreshedAt", 0 AS "assetCount"`;

async function listLibraries({ pool }) {
  const { rows } = await pool.query(`SELECT ${LIBRARY} FROM library WHERE "deletedAt" IS NULL ORDER BY "createdAt"`);
  return [200, rows];
}

async function createLibrary({ pool }, { body }) {
  const fields = checked(body, { ownerId: uuid }, { name: string, importPaths: texts, exclusionPatterns: texts });
  const row = { name: "New External Library", importPaths: [], exclusionPatterns: EXCLUDED, ...fields };
  return [201, await insert(pool, "library", row, LIBRARY)];
}

async function findLibrary(pool, id) {
  const library = await database.one(pool, `SELECT id FROM library WHERE id = $1 AND "deletedAt" IS NULL`, [id]);
  if (library === undefined) {
    throw new Refusal(400, "Library not found");
  }
}

async function checkImportPath(mediaLocation, importPath) {
  const refuse = (words) => {
    throw new Refusal(400, `Invalid import path: ${words}`);
  };
  if (`${importPath}/`.startsWith(`${mediaLocation}/`)) {
    refuse("Cannot use media upload folder for external libraries");
  }
  if (!path.isAbsolute(importPath)) {
    refuse(`Import path must be absolute, try ${path.resolve(importPath)}`);
  }
  const stat = await fs.promises.stat(importPath).catch((error) => refuse(error.code === "ENOENT" ? "Path does not exist (ENOENT)" : String(error)));
  if (!stat.isDirectory()) {
    refuse("Not a directory");
  }
  await fs.promises.access(importPath, fs.constants.R_OK).catch(() => refuse("Lacking read permission for folder"));
}

async function changeLibrary({ pool, settings }, { body, id }) {
  const fields = checked(body, {}, { name: string, importPaths: texts, exclusionPatterns: texts });
  await findLibrary(pool, id);
  for (const importPath of fields.importPaths ?? []) {
    await checkImportPath(settings.mediaLocation, importPath);
  }
  return [200, await update(pool, "library", id, fields, LIBRARY)];
}

/** Immich queues jobs that read the folders; here that leaves the time alone. */
async function scanLibrary({ pool }, { id }) {
  await findLibrary(pool, id);
  await pool.query(`UPDATE library SET "refreshedAt" = now() WHERE id = $1`, [id]);
  return [204];
}

// -- routes ----------------------------------------

const admin = (permission) => ({ admin: true, permission });

// Method and path, who is let in (nothing: everybody), and what answers.
const ROUTES = [
  ["POST", "/api/auth/admin-sign-up", undefined, signUp],
  ["POST", "/api/auth/login", undefined, login],
  ["POST", "/api/auth/logout", {}, logout],
  ["POST", "/api/admin/database-backups/start-restore", undefined, startRestore],
  ["GET", "/api/admin/users", admin("adminUser.read"), listUsers],
  ["POST", "/api/admin/users", admin("adminUser.create"), addUser],
  ["PUT", "/api/admin/users/:id", admin("adminUser.update"), changeUser],
  ["DELETE", "/api/admin/users/:id", admin("adminUser.delete"), deleteUser],
  ["POST", "/api/admin/users/:id/restore", admin("adminUser.delete"), restoreUser],
  ["POST", "/api/api-keys", { permission: "apiKey.create" }, createKey],
  ["GET", "/api/api-keys", { permission: "apiKey.read" }, listKeys],
  ["DELETE", "/api/api-keys/:id", { permission: "apiKey.delete" }, deleteKey],
  ["GET", "/api/libraries", admin("library.read"), listLibraries],
  ["POST", "/api/libraries", admin("library.create"), createLibrary],
  ["PUT", "/api/libraries/:id", admin("library.update"), changeLibrary],
  ["POST", "/api/libraries/:id/scan", admin("library.update"), scanLibrary],
].map(([method, route, access, handler]) => ({ method, parts: route.split("/"), access, handler }));

/** The route of a request, with the id in its path. */
function find(method, pathname) {
  const parts = pathname.split("/");
  for (const route of ROUTES) {
    const fits = route.parts.length === parts.length && route.parts.every((part, index) => part === ":id" || part === parts[index]);
    if (route.method === method && fits) {
      return { ...route, id: parts[route.parts.indexOf(":id")] };
    }
  }
}

/** What a route answers: who asks comes first, then what is asked. */
async function answer(context, route, request, readBody) {
  try {
    const auth = route.access && (await authenticate(context.pool, request.headers, route.access));
    if (route.id !== undefined && !UUID.test(route.id)) {
      checked({ id: route.id }, { id: uuid });
    }
    const { searchParams } = new URL(request.url, "http://localhost");
    return await route.handler(context, { auth, id: route.id, query: searchParams, body: await readBody(request) });
  } catch (error) {
    if (error instanceof Refusal) {
      return error.answer;
    }
    throw error;
  }
}

module.exports = { Refusal, adminOf, answer, authenticate, find, startSession };
