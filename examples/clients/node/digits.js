// Calls the model "digits_onnx" of an inferd server: node digits.js localhost:8001
// Reads the .proto files at run time: the folder is in PROTO, or it is proto/ of this repository.
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const proto = process.env.PROTO || path.join(__dirname, '../../../proto');
const definition = loader.loadSync('inferd/v1/predict_service.proto', {includeDirs: [proto], longs: String, enums: String});
const {inferd} = grpc.loadPackageDefinition(definition);
const client = new inferd.v1.PredictService(process.argv[2] || 'localhost:8001', grpc.credentials.createInsecure(),
    {'grpc.max_receive_message_length': 64 << 20});

const pixels = new Float32Array(64); // one image of 8 by 8 pixels; little-endian on every common platform
client.predict({
  model: {name: 'digits_onnx'},
  inputs: [{name: 'image', dtype: 'DATA_TYPE_FP32', shape: [1, 64], data: Buffer.from(pixels.buffer)}],
}, {deadline: Date.now() + 5000}, (error, answer) => { // every call needs a deadline
  client.close();
  if (error) {
    console.error(error.message); // what was expected and what came
    process.exit(1);
  }
  const digit = answer.outputs.find((output) => output.name === 'digit').data.readBigInt64LE();
  console.log(`digit ${digit} from version ${answer.version}`);
});
