// @kubernetes/client-node as its users write it: an informer that prints what it sees, a log, an exec.
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';

const k8s = createRequire(`${process.env.CLIENTS}/node/`)('@kubernetes/client-node');
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const say = (...words) => console.log(...words);
const inputEnds = () => new Promise((done) => process.stdin.on('end', done).resume());

async function informer() {
    const list = () => core.listNamespacedConfigMap({ namespace: 'default', labelSelector: 'seen' });
    const informer = k8s.makeInformer(config, '/api/v1/namespaces/default/configmaps', list, 'seen');
    let last;
    const show = () => {
        const maps = informer.list('default').map((map) => `${map.metadata.name}=${map.data.value}`);
        const seen = maps.sort().join(' ');
        if (seen !== last) say('sees', (last = seen));
    };
    for (const kind of ['add', 'update', 'delete']) informer.on(kind, show);
    // As its documentation says: whoever wants to go on starts again.
    const start = () => informer.start().catch(() => setTimeout(start, 200));
    informer.on('error', () => setTimeout(start, 200));
    say('begun');
    await start();
    await inputEnds();
    process.exit(0);
}

async function streams() {
    const log = new PassThrough();
    const firstLine = new Promise((done) => log.once('data', (data) => done(data.toString().trim())));
    const following = await new k8s.Log(config).log('default', 'web', 'main', log, { follow: true });
    say('log', await firstLine);
    following.abort();
    const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
    const told = { output: '', errors: '' };
    output.on('data', (data) => (told.output += data));
    errors.on('data', (data) => (told.errors += data));
    const command = ['sh', '-c', 'read line; echo got $line; echo oops >&2; exit 7'];
    const status = await new Promise((done, failed) => {
        const exec = new k8s.Exec(config);
        exec.exec('default', 'web', 'main', command, output, errors, input, false, done).catch(failed);
        input.write('word\n');
    });
    const code = status.details.causes.find((cause) => cause.reason === 'ExitCode').message;
    say('exec', told.output.trim(), told.errors.trim(), code);
    process.exit(0);
}

async function objects() {
    const body = {
        metadata: { name: 'made', labels: { by: 'node' } },
        spec: { containers: [{ name: 'c', image: 'busybox:stable', command: ['sleep', '9'] }] },
    };
    await core.createNamespacedPod({ namespace: 'default', body });
    const change = [{ op: 'add', path: '/metadata/labels/more', value: 'yes' }];
    await core.patchNamespacedPod({ name: 'made', namespace: 'default', body: change });
    const { labels } = (await core.readNamespacedPod({ name: 'made', namespace: 'default' })).metadata;
    say('made', labels.by, labels.more);
    await core.createNamespacedPod({ namespace: 'default', body }).catch((error) => say('refused', error.code, 'Conflict'));
    await core.deleteNamespacedPod({ name: 'made', namespace: 'default', gracePeriodSeconds: 0 });
}

await { informer, streams, objects }[process.argv[2]]();
