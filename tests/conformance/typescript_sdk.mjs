// Drives the official TypeScript SDK: `node typescript_sdk.mjs SCENARIO` prints what the SDK's user would see as JSON.
// The environment has: SDK (folder of the installed package), ENGINE (the program), PROJECT, PICTURE.
import { pathToFileURL } from "node:url";
import path from "node:path";

const { Codex } = await import(pathToFileURL(path.join(process.env.SDK, "dist/index.js")));
const codex = new Codex({
  codexPathOverride: process.env.ENGINE,
  config: { model_verbosity: "low", show_raw_agent_reasoning: false },
});
const options = {
  workingDirectory: process.env.PROJECT,
  sandboxMode: "danger-full-access",
  approvalPolicy: "on-failure",
  modelReasoningEffort: "low",
  webSearchMode: "disabled",
  networkAccessEnabled: false,
  additionalDirectories: [process.env.PROJECT],
  threadSource: "conformance",
};
const start = () => codex.startThread(options);

const scenarios = {
  async run() {
    const thread = start();
    const turn = await thread.run("say hello");
    return { id: thread.id, ...turn };
  },
  async streamed() {
    const thread = start();
    const { events } = await thread.runStreamed("run a command");
    const seen = [];
    for await (const event of events) seen.push(event);
    return { id: thread.id, events: seen };
  },
  async twoTurns() {
    const thread = start();
    const first = await thread.run("say hello");
    const second = await thread.run("and again");
    return { first, second };
  },
  async resumed() {
    const thread = start();
    await thread.run("say hello");
    const again = codex.resumeThread(thread.id, options);
    const turn = await again.run([
      { type: "text", text: "and again" },
      { type: "local_image", path: process.env.PICTURE },
    ]);
    return { same: again.id === thread.id, ...turn };
  },
  async schema() {
    const outputSchema = { type: "object", properties: { answer: { type: "number" } }, required: ["answer"] };
    return await start().run("answer as json", { outputSchema });
  },
  async failed() {
    try {
      await start().run("please fail");
    } catch (error) {
      return { name: error.name, message: error.message };
    }
  },
  async unknownThread() {
    try {
      await codex.resumeThread("01900000-0000-7000-8000-00000000dead", options).run("hello");
    } catch (error) {
      return { name: error.name, message: error.message };
    }
  },
  async aborted() {
    const controller = new AbortController();
    const thread = start();
    const { events } = await thread.runStreamed("hold on", { signal: controller.signal });
    const seen = [];
    try {
      for await (const event of events) {
        seen.push(event.type);
        if (event.type === "item.completed") controller.abort();
      }
    } catch (error) {
      return { id: thread.id, seen, name: error.name };
    }
    return { id: thread.id, seen };
  },
};

console.log(JSON.stringify(await scenarios[process.argv[2]]()));
