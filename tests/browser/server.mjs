// The real binary, on a port and a folder of its own, both of which outlive its process.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Api, within } from "./api.mjs"

const ROOT = fileURLToPath(new URL("../..", import.meta.url))
const SCRIPTED = fileURLToPath(new URL("scripted.mjs", import.meta.url))

export class Server {
  /** Starts one; `settings` are flags of `longhaul serve`. Beside the built-in kinds it serves `scripted`. */
  static async start(...settings) {
    const server = new Server()
    server.folder = mkdtempSync(join(tmpdir(), "longhaul-browser-"))
    server.settings = settings
    server.port = 0
    const command = JSON.stringify([process.execPath, SCRIPTED])
    writeFileSync(join(server.folder, "settings.toml"), `[exec.scripted]\ncommand = ${command}\n`)
    await server.start()
    return server
  }

  /** Starts the process, where it was before, and returns once it listens. */
  async start() {
    const log = openSync(join(this.folder, "log"), "a")
    const flags = {
      config: join(this.folder, "settings.toml"), "data-dir": join(this.folder, "data"), listen: `127.0.0.1:${this.port}`,
      // A test that has failed leaves jobs that go on.
      "drain-timeout": "1s", "cancel-grace": "1s",
    }
    const command = ["serve", ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]), ...this.settings]
    const binary = process.env.LONGHAUL_BINARY ?? join(ROOT, "target/debug/longhaul")
    this.process = spawn(binary, command, { stdio: ["ignore", "pipe", log] })
    closeSync(log)
    this.ended = once(this.process, "exit")
    const lines = createInterface({ input: this.process.stdout })
    const [line] = await within(Promise.race([once(lines, "line"), this.ended]), "where the server listens")
    const address = /^longhaul listening on (127\.0\.0\.1:(\d+))/.exec(line)
    if (!address) throw new Error(`the server said ${line} instead of where it listens; its log:\n${this.log()}`)
    this.port = Number(address[2])
    this.url = `http://${address[1]}`
    this.api = new Api(this.url)
  }

  /** Ends the process as a crash does. */
  async kill() {
    this.process.kill("SIGKILL")
    await this.ended
  }

  /** Ends the process in good order, makes sure that it was good, and forgets all that it has kept. */
  async stop() {
    this.process.kill("SIGTERM")
    const [code, signal] = await within(this.ended, "the server's end").catch(async error => {
      await this.kill()
      throw error
    })
    const log = this.log()
    if (code !== 0) throw new Error(`the server ended with ${code ?? signal}; its log:\n${log}`)
    if (log.includes("panicked")) throw new Error(`the server panicked:\n${log}`)
    rmSync(this.folder, { recursive: true })
  }

  /** What it has logged so far. */
  log() {
    return readFileSync(join(this.folder, "log"), "utf8")
  }

  /** A gate for a `scripted` job that says `{"wait": gate.file}`: it stands there until the gate is opened. */
  gate(name) {
    const file = join(this.folder, `gate-${name}`)
    return { file, open: () => writeFileSync(file, "") }
  }
}
