"use strict";

/*
 * Login by OpenID Connect, as server/src/services/auth.service.ts and server/src/repositories/oauth.repository.ts of v3.3, with
 * the same library: discovery, the address to go to, the exchange of the code, and the account by its claims.
 */

const accounts = require("./accounts");
const database = require("./database");
const log = require("./log");

const CONTEXT = "Api:OAuthRepository";
const GIB = 1024 ** 3;
const NOT_ENABLED = [400, { message: "OAuth is not enabled", statusCode: 400 }];

async function discovered(oauth) {
  const client = await import("openid-client");
  const method = { client_secret_post: client.ClientSecretPost, client_secret_basic: client.ClientSecretBasic }[
    oauth.tokenEndpointAuthMethod
  ];
  try {
    const configuration = await client.discovery(
      new URL(oauth.issuerUrl),
      oauth.clientId,
      { client_secret: oauth.clientSecret, response_types: ["code"], id_token_signed_response_alg: oauth.signingAlgorithm },
      oauth.clientSecret ? method(oauth.clientSecret) : client.None(),
      { execute: oauth.allowInsecureRequests ? [client.allowInsecureRequests] : [], timeout: oauth.timeout },
    );
    return { client, configuration };
  } catch (error) {
    const reason = `Error in OAuth discovery: ${error}${error.cause ? ` (${error.cause.code ?? error.cause.message})` : ""}`;
    log.write("error", CONTEXT, reason);
    throw new Error(reason);
  }
}

async function authorize({ oauth }, { redirectUri, state, codeChallenge }) {
  if (!oauth.enabled) {
    return NOT_ENABLED;
  }
  const { client, configuration } = await discovered(oauth);
  const verifier = codeChallenge ? undefined : client.randomPKCECodeVerifier();
  const parameters = { redirect_uri: redirectUri, scope: oauth.scope, state: state ?? client.randomState() };
  if (configuration.serverMetadata().supportsPKCE()) {
    parameters.code_challenge = codeChallenge ?? (await client.calculatePKCECodeChallenge(verifier));
    parameters.code_challenge_method = "S256";
  }
  return [201, { url: client.buildAuthorizationUrl(configuration, parameters).toString() }];
}

async function profileOf(oauth, { url, state, codeVerifier }) {
  const { client, configuration } = await discovered(oauth);
  try {
    const tokens = await client.authorizationCodeGrant(configuration, new URL(url), {
      expectedState: state,
      pkceCodeVerifier: configuration.serverMetadata().supportsPKCE() ? codeVerifier : undefined,
    });
    const claims = tokens.claims();
    return claims?.email ? claims : await client.fetchUserInfo(configuration, tokens.access_token, client.skipSubjectCheck);
  } catch (error) {
    log.write("error", CONTEXT, `OAuth login failed: ${error.message}`);
    throw new Error("OAuth login failed");
  }
}

function claim(profile, key, isValid, fallback) {
  return isValid(profile[key]) ? profile[key] : fallback;
}

/** A new account by the claims that the settings name; wrong ones count as missing. */
async function register(pool, oauth, profile, email) {
  const isText = (value) => typeof value === "string" && value !== "";
  const quota = claim(profile, oauth.storageQuotaClaim, (value) => Number(value) >= 0, oauth.defaultStorageQuota);
  const role = claim(profile, oauth.roleClaim, (value) => ["admin", "user"].includes(value), "user");
  return database.one(
    pool,
    `INSERT INTO "user" (email, name, password, "isAdmin", "oauthId", "storageLabel", "quotaSizeInBytes")
     VALUES ($1, $2, '', $3, $4, $5, $6) RETURNING *`,
    [
      email,
      profile.name ?? profile.preferred_username ?? email,
      role === "admin",
      profile.sub,
      claim(profile, oauth.storageLabelClaim, isText, null),
      quota === null ? null : quota * GIB,
    ],
  );
}

async function callback({ pool }, { oauth }, body) {
  if (!oauth.enabled) {
    return NOT_ENABLED;
  }
  if (!body.state || !body.codeVerifier) {
    return [400, { message: `OAuth ${body.state ? "code verifier" : "state"} is missing`, statusCode: 400 }];
  }
  const profile = await profileOf(oauth, body);
  const email = profile.email?.trim().toLowerCase();
  let user = await database.one(pool, `SELECT * FROM "user" WHERE "oauthId" = $1`, [profile.sub]);
  user ??= await database.one(pool, `UPDATE "user" SET "oauthId" = $1 WHERE email = $2 AND "oauthId" = '' RETURNING *`, [profile.sub, email]);
  if (user === undefined && !(oauth.autoRegister && email)) {
    return [400, { message: "OAuth authentication failed", statusCode: 400 }];
  }
  user ??= await register(pool, oauth, profile, email);
  return [201, { ...(await accounts.startSession(pool, user)), quotaSizeInBytes: user.quotaSizeInBytes, storageLabel: user.storageLabel }];
}

module.exports = { authorize, callback };
